"""What holds of any message, path and image, not only of those that somebody thought of."""

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from astropy.io import fits
from conftest import HERE, Pipeline
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord
from PIL import Image

from pipeline.comparison.decode import FORMATS, MODES, decode
from pipeline.comparison.draw import MAX_SIDE, draw
from pipeline.comparison.measure import compare, mask_of
from pipeline.comparison.planes import DEEP, Planes
from pipeline.errors import InvalidInput
from pipeline.messages import MESSAGE_TYPES, dump, image_id, parse, schema
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.stream.dead_letters import DeadLetter
from pipeline.terminal import printable

SCHEMA: dict[str, Any] = schema()
SOURCE_RULE = SCHEMA["$defs"]["ReceivedImage"]["properties"]["source"]
topics = st.sampled_from(list(MESSAGE_TYPES))
# One that is the same in every run, whatever it has found before.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=300)
settings.load_profile("steady")
# The threads of other tests' Kafka clients use `random` while Hypothesis makes a case.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
here = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def value_of(rule: dict[str, Any]) -> st.SearchStrategy[object]:
    """Whatever a rule of our schema allows."""
    if "anyOf" in rule:
        return st.one_of(*map(value_of, rule["anyOf"]))
    if rule.get("format") == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
    made: dict[str, Callable[[], st.SearchStrategy[object]]] = {
        "null": st.none,
        "integer": lambda: st.integers(rule["minimum"], rule["exclusiveMaximum"] - 1),
        "number": lambda: st.floats(rule["minimum"], rule.get("maximum"), allow_infinity=False),
        "array": lambda: st.tuples(*map(value_of, rule["prefixItems"])).map(list),
        "string": lambda: st.from_regex(rule["pattern"], alphabet=st.characters(codec="utf-8")),
    }
    return st.sampled_from(rule["enum"]) if "enum" in rule else made[rule["type"]]()


@st.composite
def messages(draw: st.DrawFn, topic: str) -> dict[str, object]:
    """Any message that the schema allows, with ids that agree."""
    definition = SCHEMA["$defs"][MESSAGE_TYPES[topic].__name__]
    rules = {name: value_of(rule) for name, rule in definition["properties"].items()}
    needed = {name: rules.pop(name) for name in definition["required"]}
    message = draw(st.fixed_dictionaries(needed, optional=rules))
    source, number = draw(value_of(SOURCE_RULE)), draw(st.integers(1, 10**9 - 1))
    earlier = draw(st.integers(0, number - 1))
    agreeing = {
        "source": source,
        "number": number,
        "image_id": image_id(str(source), number),
        "event_id": image_id(str(source), number),
        "previous_image_id": image_id(str(source), earlier),
    }
    return message | {name: agreeing[name] for name in agreeing.keys() & message.keys()}


def test_the_schema_is_the_one_that_is_checked(data: Path) -> None:
    """What the documents say of the messages is what the programs check."""
    program = Pipeline(data, "").start(
        sys.executable, "-m", "pipeline", "schema", PYTHONPATH=str(HERE)
    )
    assert program.ends() == 0
    assert f"{program.output}\n" == (HERE / "docs" / "messages.schema.json").read_text()


@pytest.mark.slow
@given(topics.flatmap(lambda topic: st.tuples(st.just(topic), messages(topic))))
def test_what_the_schema_allows_is_taken(case: tuple[str, dict[str, object]]) -> None:
    """And it comes out again as it was, as the schema says it."""
    topic, message = case
    assert is_valid(message, topic)
    parsed = parse(json.dumps(message).encode(), MESSAGE_TYPES[topic])
    assert parse(dump(parsed), MESSAGE_TYPES[topic]) == parsed
    assert is_valid(json.loads(dump(parsed)), topic)


def is_valid(value: object, topic: str) -> bool:
    """Whether the schema allows it."""
    validator = jsonschema.Draft202012Validator({"$ref": f"#/properties/{topic}", **SCHEMA})
    return bool(validator.is_valid(value))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@pytest.mark.slow
@given(
    topics.flatmap(
        lambda topic: st.tuples(
            st.just(topic),
            messages(topic),
            st.sampled_from(list(MESSAGE_TYPES[topic].__struct_fields__)),
            anything,
        )
    )
)
def test_every_field_is_checked(case: tuple[str, dict[str, object], str, object]) -> None:
    """A field whose value the schema forbids makes the message unusable, whatever it is."""
    topic, message, field, value = case
    broken = {**message, field: value}
    if not is_valid(broken, topic):
        with pytest.raises(InvalidInput):
            parse(json.dumps(broken).encode(), MESSAGE_TYPES[topic])


@given(st.binary() | anything.map(lambda value: json.dumps(value).encode()), topics)
@example(b"[" * 100_000, "images")
@example(b'{"image_id":"\xff"}', "images")
def test_any_bytes(value: bytes, topic: str) -> None:
    """They are a message or unusable, with a reason of one line that steers no terminal."""
    try:
        parse(value, MESSAGE_TYPES[topic])
    except InvalidInput as reason:
        shown = printable(str(reason))
        assert shown.isprintable()


names = st.text(max_size=5) | st.sampled_from(
    [
        *("image_database", "image_event_database", "deep", "..", ".", "", "~"),
        *("a.jpg", "b.jpg", "inside", "out", "up", "loop", "pipe", "secret"),
        *("\0", "x" * 300, "\udcff", "a.jpg\n"),
    ]
)


@given(st.lists(names, max_size=6).map("/".join), st.booleans())
@example("image_database/a.jpg", False)
@example("image_database/inside", False)
@here
def test_any_path(tmp_path: Path, path: str, is_absolute: bool) -> None:
    """Only a regular file of the directory itself is read, links resolved; else it is unusable."""
    images = tmp_path / "data" / "image_database"
    if not images.exists():
        (images / "deep").mkdir(parents=True)
        (images / "a.jpg").write_bytes(b"inside")
        (images / "deep" / "b.jpg").write_bytes(b"inside")
        (images / "inside").symlink_to("deep/b.jpg")
        (tmp_path / "data" / "secret").write_bytes(b"secret")
        (tmp_path / "data" / "image_event_database").mkdir()
        (tmp_path / "data" / "image_event_database" / "a.jpg").write_bytes(b"secret")
        (images / "out").symlink_to("../secret")
        (images / "up").symlink_to("..")
        (images / "loop").symlink_to("loop")
        os.mkfifo(images / "pipe")
    database = Database(Location(str(tmp_path / "data")), "image_database")
    content = None
    with suppress(InvalidInput):
        content = database.read(f"{tmp_path}/data/{path}" if is_absolute else path)
    is_there = path in ("image_database/a.jpg", "image_database/inside")
    assert content == b"inside" if is_there else content in (None, b"inside")


def as_file(image: Image.Image, kind: str) -> bytes:
    """The image as a file, in a mode that the kind has."""
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


SEEDS = [
    as_file(Image.effect_mandelbrot((9, 7), (-2, -1, 1, 1), 9).convert("RGB"), kind)
    for kind in FORMATS
]
for samples in (np.arange(63, dtype=np.int16), np.linspace(-1, 1, 63, dtype=np.float32)):
    fits_file = io.BytesIO()
    fits.PrimaryHDU(samples.reshape(7, 9)).writeto(fits_file)
    SEEDS.append(fits_file.getvalue())


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), max_size=6),
    st.integers(0, 10_000),
)
def test_any_damaged_image(seed: bytes, changes: list[tuple[int, bytes]], length: int) -> None:
    """It can be compared, drawn and made a mask of, or is unusable."""
    content = bytearray(seed)
    for place, new in changes:
        start = place % len(content)
        content[start : start + len(new)] = new
    try:
        image = decode(bytes(content[:length]))
    except InvalidInput:
        return
    assert image.mode in (*MODES.values(), Planes.mode)
    mask = None if isinstance(image, Planes) else mask_of(image)
    change = compare(decode(SEEDS[1]), image, mask)
    if change:
        assert max(decode(draw(change)).size) == min(max(change.largest.size), MAX_SIDE)
        assert 0 <= change.block_difference <= change.full_scale


@st.composite
def pixels(draw: st.DrawFn, mode: str, side: int = 5) -> Image.Image:
    """A small image of this mode."""
    width, height = draw(st.integers(1, side)), draw(st.integers(1, side))
    sample = st.integers(0, 65535 if mode == "I;16" else 255)
    count = width * height * max(1, len(Image.new(mode, (1, 1)).getbands()))
    samples = draw(st.lists(sample, min_size=count, max_size=count))
    kind = {"I;16": np.uint16, "F": np.float32}.get(mode, np.uint8)
    return Image.frombytes(mode, (width, height), np.array(samples, kind).tobytes())


def padded(
    image: Image.Image, width: int, height: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Samples as numpy sees them, as large as asked for; where there are none, -1."""
    array = np.asarray(image, np.int64)
    array = array.reshape(*array.shape[:2], -1)
    missing = [(0, height - array.shape[0]), (0, width - array.shape[1]), (0, 0)]
    return np.pad(array, missing, constant_values=-1)


@given(
    st.sampled_from(["L", "RGB", "RGBA", "CMYK", "I;16"]).flatmap(
        lambda mode: st.tuples(pixels(mode), pixels(mode))
    )
)
def test_any_two_images(images: tuple[Image.Image, Image.Image]) -> None:
    """Unchanged exactly if numpy finds all samples equal; else the measures are numpy's."""
    width, height = (max(getattr(one, side) for one in images) for side in ("width", "height"))
    before, after = (padded(one, width, height) for one in images)
    change = compare(*images)
    assert (change is None) == np.array_equal(before, after)
    if change:
        full = 65535 if images[0].mode in DEEP else 255
        difference = np.where((before < 0) != (after < 0), full, np.abs(after - before))
        there = ((before >= 0) | (after >= 0)).any(axis=2)
        changed = difference.any(axis=2)
        rows, columns = np.nonzero(changed)
        assert change.l2_norm == pytest.approx(np.linalg.norm(difference.ravel()))
        assert change.changed_pixels == changed.sum()
        assert change.pixels == there.sum()
        assert change.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.array_equal(np.asarray(change.largest) > 0, changed)


@pytest.mark.slow
@given(
    st.sampled_from(["L", "RGB", "CMYK", "I;16", "F"]).flatmap(
        lambda mode: st.tuples(pixels(mode, 11), pixels(mode, 11), pixels("L", 11))
    )
)
def test_any_block_difference(images: tuple[Image.Image, Image.Image, Image.Image]) -> None:
    """It is that of the definition, with any mask; where only one has pixels, it is full scale."""
    first, second, mask = images
    change = compare(first, second, mask_of(mask))
    width, height = (max(getattr(one, side) for one in images) for side in ("width", "height"))
    before, after = (padded(one, width, height) for one in (first, second))
    covering = padded(mask, width, height)[:, :, 0]
    free = (covering <= 0) | (2 * covering < covering.max())
    there = [(one >= 0).any(axis=2) & free for one in (before, after)]
    difference = np.where((there[0] & there[1])[:, :, np.newaxis], after - before, 0)
    is_in_one_only = bool((there[0] != there[1]).any())
    assert (change is None) == (not difference.any() and not is_in_one_only)
    if change:
        wide = np.pad(difference, [(4, 8), (4, 8), (0, 0)])
        blocks = np.lib.stride_tricks.sliding_window_view(wide, (8, 8), axis=(0, 1))
        largest = np.abs(blocks[::4, ::4].sum(axis=(3, 4))).max() / 64
        assert change.block_difference == (change.full_scale if is_in_one_only else largest)


headers = st.lists(
    st.tuples(
        st.sampled_from(
            [f"__connect.errors.{name}" for name in ("topic", "partition", "offset", "stage")]
        )
        | st.text(),
        st.none() | st.binary() | st.text(max_size=3).map(str.encode),
    )
)


@given(headers, st.none() | st.binary(), st.none() | st.binary())
def test_any_dead_letter(
    headers: list[tuple[str, bytes | None]], key: bytes | None, value: bytes | None
) -> None:
    """Whoever sent it, it can be listed, on one line."""
    empty = dict.fromkeys(ConsumerRecord._fields)
    about = {"topic": "dead-letters", "partition": 0, "offset": 3, "timestamp": 0}
    record = ConsumerRecord(**{**empty, **about, "headers": headers, "key": key, "value": value})
    assert str(DeadLetter(record)).isprintable()
    assert len(DeadLetter(record).position) == 3
