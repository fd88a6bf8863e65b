"""A handful of the points that `tools/kill_points.py` tries, on one pipeline that goes on.

It needs a Kafka that it can kill, so it starts an embedded one, whatever --broker says.
"""

import dataclasses
import random
from collections.abc import Iterator

import msgspec
import pytest
from kafka import KafkaProducer
from kill_proxy import Point
from kill_trial import Trial, TriedPipeline

STAGE = "image_analysis"
ALERT = "image_event_alert"


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TriedPipeline]:
    """The pipeline behind the proxy, flowing."""
    tried = TriedPipeline(tmp_path_factory.mktemp("tried"))
    yield tried
    tried.close()


@pytest.mark.parametrize(
    "trial",
    [
        # Kafka has decided that the transaction is true, and its partitions don't know it yet.
        Trial(Point("WriteTxnMarkers", "request", "before"), "kill", "Kafka", "Kafka"),
        # The messages and the offsets are there, and the transaction isn't true.
        Trial(Point("TxnOffsetCommit", "answer", "before"), "kill", STAGE, STAGE),
        # The transaction is true, and who asked for that isn't told.
        Trial(Point("EndTxn", "request", "after"), "cut", STAGE, STAGE),
        Trial(Point("EndTxn", "request", "after"), "cut", "image_receiving", "image_receiving"),
        # kafka-python forgets after these that it had begun a transaction.
        Trial(Point("Produce", "request", "before"), "error", STAGE, STAGE, 45),
        Trial(Point("Produce", "request", "before"), "error", ALERT, ALERT, 47),
        # Kafka ends the transaction in the meantime.
        Trial(Point("Produce", "answer", "before"), "suspend", STAGE, STAGE),
    ],
    ids=str,
)
def test_nothing_lost_and_nothing_twice(tried: TriedPipeline, trial: Trial) -> None:
    """Each image, event and alert is there once, all partitions go on, and so within 15 s."""
    chance = random.Random(str(trial))
    trial = dataclasses.replace(trial, skip=chance.randrange(4))
    outcome = tried.attempt(trial)
    assert outcome.is_reached
    assert outcome.faults == []


def test_another_copy_takes_over(tried: TriedPipeline) -> None:
    """Where a stage is killed before its transaction ends, another copy goes on with its sources.

    Until Kafka has given up the dead one and its transaction, its offsets can't be asked for.
    """
    point = Point("TxnOffsetCommit", "answer", "before")
    outcome = tried.take_over(Trial(point, "kill", STAGE, STAGE))
    assert outcome.is_reached
    assert outcome.faults == []


def test_at_the_end(tried: TriedPipeline) -> None:
    """Once receiving has ended, all that it said it received has gone all the way."""
    outcome = tried.finish()
    assert outcome.faults == []


def test_what_is_wrong_is_seen(tried: TriedPipeline) -> None:
    """An alert twice, an alert of an image that nobody received, and a transaction left open."""
    producer = KafkaProducer(bootstrap_servers=tried.bootstrap_servers)
    last = len(list((tried.data / "image_database").glob("cam1-*.jpg"))) - 1
    foreign = (last | 3) + 4000  # no image that is received meanwhile
    for number in (3, foreign):
        name = f"cam1-{number:05d}"
        alert = {"image_id": name, "received": "2026-01-01T00:00:00Z"}
        producer.send("alerts", msgspec.json.encode(alert), b"cam1").get(10)
    producer.close()
    forgetful = KafkaProducer(
        bootstrap_servers=tried.bootstrap_servers, transactional_id="forgetful"
    )
    forgetful.init_transactions()
    forgetful.begin_transaction()
    forgetful.send("dead-letters", b"", partition=0).get(10)
    outcome = tried.finish(patience=1)
    assert outcome.twice == ["alerts: cam1-00003"]
    assert f"images: cam1-{foreign:05d}" in outcome.lost
    assert [one.split()[0] for one in outcome.stuck] == ["dead-letters[0]"]
    forgetful.abort_transaction()
    forgetful.close()
