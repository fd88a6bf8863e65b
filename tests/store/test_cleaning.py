"""The mark that cleaning leaves: until when the images of each source were deleted on purpose."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.store.cleaning import CLEANED_PATH, add_marks, mark_directory, read_marks


def test_the_newest_image_of_each_source(tmp_path: Path) -> None:
    """Its time counts, and of an earlier cleaning's time and this one's the later."""
    images = tmp_path / "image_database"
    images.mkdir()
    names = ("00000.jpg", "00001.jpg", "cam1-00007.fits", ".image_receiving.json", "notes.txt")
    for second, name in enumerate(names):
        (images / name).touch()
        os.utime(images / name, (second, second))
    mark_directory(tmp_path)
    mark = tmp_path / CLEANED_PATH
    times = {"": 1, "cam1": 2}
    expected = {source: datetime.fromtimestamp(time, UTC) for source, time in times.items()}
    assert read_marks(mark.read_text()) == expected
    (images / "cam1-00007.fits").unlink()
    os.utime(images / "00001.jpg", (9, 9))
    mark_directory(tmp_path)
    expected[""] = datetime.fromtimestamp(9, UTC)
    assert read_marks(mark.read_text()) == expected
    assert read_marks(add_marks(mark.read_text(), {"": 3})) == expected


def test_nothing_to_clean(tmp_path: Path) -> None:
    """No mark is made, with an empty directory or none."""
    mark_directory(tmp_path)
    (tmp_path / "image_database").mkdir()
    mark_directory(tmp_path)
    assert os.listdir(tmp_path) == ["image_database"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", '{"": 5}', '{"": "x"}', '{"": "2026-01-01T00:00:00"}']
)
def test_a_damaged_mark(content: str) -> None:
    """It is known."""
    with pytest.raises(ValueError, match="it has no times by their sources"):
        read_marks(content)
