"""What each stage is: a new stage is an entry here, and its program."""

from dataclasses import dataclass

from pipeline.messages import (
    ALERTS,
    IMAGE_EVENTS,
    IMAGES,
    IMAGES_WITHOUT_EVENT,
    MESSAGE_TYPES,
    NOTIFICATIONS,
)
from pipeline.store.names import IMAGE_DATABASE, IMAGE_EVENT_ALERTS, IMAGE_EVENT_DATABASE


@dataclass(frozen=True)
class StageDefinition:
    """What a stage consumes, publishes and writes."""

    name: str  # of its program and of its consumer group
    consumes: str  # topic; the first stage has none
    publishes: str  # the topic of its results, by which repeated messages are recognized
    also_publishes: tuple[str, ...]  # other topics
    writes: str  # directory of the mock database

    def __post_init__(self) -> None:
        for topic in filter(None, (self.consumes, self.publishes)):
            if topic not in MESSAGE_TYPES:
                raise ValueError(
                    f"stage {self.name}: the topic {topic!r} has no type of message; add it to "
                    "MESSAGE_TYPES in pipeline/messages.py"
                )


IMAGE_RECEIVING = StageDefinition(
    "image_receiving",
    consumes="",
    publishes=IMAGES,
    also_publishes=(),
    writes=IMAGE_DATABASE,
)
IMAGE_ANALYSIS = StageDefinition(
    "image_analysis",
    consumes=IMAGES,
    publishes=IMAGE_EVENTS,
    also_publishes=(IMAGES_WITHOUT_EVENT,),
    writes=IMAGE_EVENT_DATABASE,
)
IMAGE_EVENT_ALERT = StageDefinition(
    "image_event_alert",
    consumes=IMAGE_EVENTS,
    publishes=ALERTS,
    also_publishes=(NOTIFICATIONS,),
    writes=IMAGE_EVENT_ALERTS,
)
STAGES = (IMAGE_RECEIVING, IMAGE_ANALYSIS, IMAGE_EVENT_ALERT)
CONSUMING_STAGES = tuple(stage for stage in STAGES if stage.consumes)
