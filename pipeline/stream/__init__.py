"""What the programs need of Kafka."""
