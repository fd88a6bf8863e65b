"""The rule that makes a change an image event."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Rule:
    """What makes an image an event."""

    threshold: float = 0  # that the block difference must reach; 0: any difference will do
    mask: Image.Image | None = None  # of what is ignored
    mask_sha256: str | None = None  # of its file


ANY_DIFFERENCE = Rule()
