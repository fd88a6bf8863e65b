"""Unpack tile-compressed images of a FITS file, as a program of its own, within limits.

A stranger's file can crash the C code that unpacks it, or have it use any time and memory. A stage
that runs this program survives all of that (see `pipeline/comparison/fits.py`).

    python -m pipeline.comparison.unpack_fits PART... < FITS file > arrays in NumPy's own format
"""

import io
import resource
import sys
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

MAX_MEMORY = 4 * 2**30  # bytes
MAX_SECONDS = 60  # of a processor
TOO_LARGE = 3  # the exit status if the memory isn't enough


def main(numbers: list[str]) -> int:
    """Unpack the parts with these numbers; the exit status."""
    from astropy.io import fits  # noqa: PLC0415  # optional, and only this program needs it here

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY if most == resource.RLIM_INFINITY else min(MAX_MEMORY, most)
    with suppress(ValueError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    parts: Any
    try:
        with fits.open(io.BytesIO(sys.stdin.buffer.read()), memmap=False) as parts:
            for number in numbers:
                np.save(sys.stdout.buffer, parts[int(number)].data, allow_pickle=False)
    except MemoryError:
        return TOO_LARGE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
