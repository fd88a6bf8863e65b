"""Make `image_original/original_image.jpg`: a synthetic star field, 1024 x 1024, in colour.

python tools/make_original_image.py
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = 1024
TARGET = Path(__file__).resolve().parents[1] / "image_original" / "original_image.jpg"

Field = NDArray[np.float32]  # SIZE x SIZE, or SIZE x SIZE x 3 for colour; 1.0 is bright


def clouds(rng: np.random.Generator, coarsest: int) -> Field:
    """Fractal noise from 0 to 1: random grids, each finer and weaker, blown up and added."""
    total = np.zeros((SIZE, SIZE), np.float32)
    cells, weight = coarsest, 1.0
    while cells < SIZE // 4:
        grid = Image.fromarray(rng.random((cells, cells), np.float32))
        total += weight * np.asarray(grid.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        cells, weight = cells * 2, weight * 0.55
    return np.interp(total, (total.min(), total.max()), (0, 1)).astype(np.float32)


def nebula(rng: np.random.Generator) -> Field:
    """Glowing gas in two colours, dust in front of it."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    band = np.exp(-(((x - 0.15) * 0.62 + (y - 0.95) * 0.78) ** 2) / 0.09)
    gas = clouds(rng, 3) ** 2.4 * band
    oxygen = clouds(rng, 4) ** 3.2 * np.exp(-((x - 0.62) ** 2 + (y - 0.30) ** 2) / 0.10)
    dust = 1 - 0.85 * np.clip((clouds(rng, 4) - 0.50) * 4, 0, 1)
    hydrogen_red, oxygen_teal = (
        np.array([0.95, 0.24, 0.38], np.float32),
        np.array([0.10, 0.52, 0.62], np.float32),
    )
    glow = gas[..., None] * hydrogen_red + oxygen[..., None] * oxygen_teal
    sky: Field = glow * dust[..., None] * 1.1 + np.array([0.010, 0.012, 0.022], np.float32)
    return sky


def galaxy(x0: float, y0: float, radius: float, tilt: float, turn: float) -> Field:
    """A spiral with two arms: a warm core, a blue disk."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    along = ((x - x0) * np.cos(turn) + (y - y0) * np.sin(turn)) / radius
    across = ((y - y0) * np.cos(turn) - (x - x0) * np.sin(turn)) / (radius * tilt)
    r = np.hypot(along, across) + 1e-3
    arms = 0.5 + 0.5 * np.cos(2 * np.arctan2(across, along) - 5.5 * np.log(r + 0.12))
    disk = np.exp(-r * 2.2) * (0.25 + 0.75 * arms**2) * np.clip(1.6 - r, 0, 1)
    core = np.exp(-((r / 0.16) ** 1.3))
    blue, warm = np.array([0.55, 0.68, 1.0], np.float32), np.array([1.0, 0.82, 0.55], np.float32)
    sky: Field = disk[..., None] * blue * 1.1 + core[..., None] * warm * 1.5
    return sky


def add_star(sky: Field, x: float, y: float, brightness: float, colour: Field) -> None:
    """A point of light as a telescope shows it: a core, a halo, and spikes if it is bright."""
    reach = int(6 + 18 * brightness**0.6)
    top, left = max(0, int(y) - reach), max(0, int(x) - reach)
    rows = np.arange(top, min(SIZE, int(y) + reach + 1))[:, None] - y
    columns = np.arange(left, min(SIZE, int(x) + reach + 1))[None, :] - x
    r2 = rows**2 + columns**2
    light = brightness * (np.exp(-r2 / 2.6) + 0.016 / (1 + r2 / 12) ** 1.5)
    if brightness > 5:
        for across, along in ((rows, columns), (columns, rows)):
            fade = np.clip(1 - np.abs(along) / reach, 0, 1) ** 2
            light = light + 0.10 * brightness * np.exp(-(across**2) / 0.9) * fade
    patch = sky[top : top + light.shape[0], left : left + light.shape[1]]
    patch += light[..., None] * colour


def main() -> None:
    """Draw the sky and save it."""
    rng = np.random.default_rng(2026)
    sky = nebula(rng) + galaxy(745, 705, 150, 0.48, -0.6) + galaxy(228, 196, 34, 0.35, 0.9)
    for _ in range(2200):
        blue_to_red = rng.beta(2, 2.4)
        colour = np.array([0.62 + 0.5 * blue_to_red, 0.80, 1.12 - 0.6 * blue_to_red], np.float32)
        brightness = min(14.0, 0.05 * float(rng.pareto(0.95) + 1))
        x, y = rng.uniform(0, SIZE, 2)
        add_star(sky, x, y, brightness, colour)
    noise = rng.normal(0, 0.006, sky.shape).astype(np.float32)
    exposed = 1 - np.exp(-1.9 * np.clip(sky + noise, 0, None))
    picture = Image.fromarray((255 * exposed ** (1 / 1.25)).astype(np.uint8))
    picture.save(TARGET, quality=92, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
