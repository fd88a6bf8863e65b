"""The rule by which a change is an image event."""

from dataclasses import dataclass

from PIL import Image

from pipeline.comparison.measure import Change


@dataclass(frozen=True)
class Rule:
    """A change is an event if its block difference reaches the threshold."""

    threshold: float = 0  # 0: any difference is an event
    mask: Image.Image | None = None  # 255 where differences are ignored
    mask_sha256: str | None = None  # of the mask's file

    def is_event(self, change: Change) -> bool:
        """Whether this change is an image event."""
        return change.block_difference >= self.threshold

    def mask_warning(self, size: tuple[int, int]) -> str:
        """What to say if the mask has another size than the image; empty if it has the same."""
        if self.mask is None or self.mask.size == size:
            return ""
        sizes = "{} x {} pixels, and the image {} x {}".format(*self.mask.size, *size)
        return f"the mask has {sizes}: what it doesn't cover counts"
