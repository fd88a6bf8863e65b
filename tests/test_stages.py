"""What a stage is said to be, before it starts."""

import pytest

from pipeline.messages import ALERTS
from pipeline.stages import StageDefinition


def test_a_topic_without_a_type_of_message() -> None:
    """Whoever adds a stage learns at its first start what is missing, and where to add it."""
    with pytest.raises(ValueError, match="topic 'follow-ups' has no type of message"):
        StageDefinition("follow_up", ALERTS, "follow-ups", also_publishes=(), writes="follow_ups")
