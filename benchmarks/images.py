"""The images to measure with: star fields, in pairs of JPEG files that differ in one way each."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.uint8]  # height x width x 3, or height x width for grey


@dataclass(frozen=True)
class Pair:
    """Two consecutive images."""

    name: str
    before: bytes
    after: bytes
    is_changed: bool  # in any pixel


@dataclass(frozen=True)
class Kind:
    """A kind of images, such as a camera gives."""

    name: str
    width: int
    height: int
    is_grey: bool = False

    def pairs(self) -> list[Pair]:
        """A pair for each way in which an image can differ from the one before it."""
        rng = np.random.default_rng(5)
        field = star_field(rng, self)
        star = field.copy()
        add_star(star, self.width / 3, self.height / 3, 200)
        # The same noise that the field has already.
        noisy = field + rng.standard_normal(field.shape, np.float32) * 3
        first = jpeg(field)
        return [
            Pair("identical bytes", first, first, is_changed=False),
            Pair("same pixels, other bytes", first, commented(first), is_changed=False),
            Pair("one new star", first, jpeg(star), is_changed=True),
            Pair(
                "dense noise",
                first,
                jpeg(noisy.round().clip(0, 255).astype(np.uint8)),
                is_changed=True,
            ),
            Pair("turned by 90 degrees", first, jpeg(np.rot90(field)), is_changed=True),
        ]


KINDS = (
    Kind("640x480", 640, 480),
    Kind("2 MP", 1600, 1200),
    Kind("12 MP", 4000, 3000),
    Kind("4096x4096 grey", 4096, 4096, is_grey=True),
)


def star_field(rng: np.random.Generator, kind: Kind) -> Field:
    """A dark sky with the noise of a camera, and a star for each 1,000 pixels."""
    shape = (kind.height, kind.width) if kind.is_grey else (kind.height, kind.width, 3)
    field = (rng.standard_normal(shape, np.float32) * 3 + 20).clip(0, 255).astype(np.uint8)
    for _ in range(kind.width * kind.height // 1000):
        x, y = rng.uniform(0, kind.width), rng.uniform(0, kind.height)
        add_star(field, x, y, min(235.0, 15 * float(rng.pareto(1.2) + 1)))
    return field


def add_star(field: Field, x: float, y: float, brightness: float) -> None:
    """A point of light with a halo, in 17 x 17 pixels."""
    top, left = max(0, int(y) - 8), max(0, int(x) - 8)
    patch = field[top : int(y) + 9, left : int(x) + 9]
    rows, columns = np.ogrid[: patch.shape[0], : patch.shape[1]]
    light = brightness * np.exp(-((rows + top - y) ** 2 + (columns + left - x) ** 2) / 5)
    patch[:] = np.minimum(patch + light.reshape(light.shape + (1,) * (field.ndim - 2)), 255)


def jpeg(field: NDArray[np.uint8]) -> bytes:
    """The JPEG file that a camera would make of the field."""
    content = io.BytesIO()
    Image.fromarray(field).save(content, "JPEG", quality=90)
    return content.getvalue()


def commented(content: bytes) -> bytes:
    """The same JPEG with a comment after its first two bytes, which changes no pixel."""
    return content[:2] + b"\xff\xfe\x00\x0bsame sky" + b"\x00" + content[2:]
