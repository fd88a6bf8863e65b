"""What the programs need of Kafka.

Read `stage.py` first: it is all that a stage's program sees. It stands on `membership.py` and
`transactions.py`, and these on `connection.py`. Faults of the client library are worked around in
`kafka_python.py` alone.
"""
