"""The viewer: real pages in a real browser, and what it answers to those who aren't one."""

import http.client
import io
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from urllib.parse import quote

import numpy as np
import pytest
from astropy.io import fits
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from conftest import CHROMIUM, Pipeline, StoredPipeline, until
from kafka import KafkaAdminClient, KafkaProducer
from object_store import Faults, FaultyNetwork
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from starlette.requests import Request
from tiff_writer import tiff

import embedded_kafka
from embedded_kafka import free_port
from pipeline.settings import Location
from pipeline.store.database import Database
from pipeline.viewer.index import Index
from pipeline.viewer.pages.event import event_page
from pipeline.viewer.site import Site

SKY, STAR = (10, 20, 60), (250, 240, 200)
BOX = (40, 20, 60, 40)  # left, top, right, bottom of the star
EVENING = datetime(2026, 11, 25, 18, 0, tzinfo=UTC)
NASTY = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}'


class Viewer:
    """A viewer that runs."""

    def __init__(self, pipeline: Pipeline, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        self.data = pipeline.data
        self.program = pipeline.command("view", "--port", str(self.port), *arguments)
        self.program.says(f"view: {self.url}$")

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The status, headers and body of the answer to a request, sent as it is."""
        connection = http.client.HTTPConnection("localhost", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), body

    def text(self, path: str, status: int = 200) -> str:
        """A page's text; the status must be this one."""
        found, _, body = self.ask(path)
        assert found == status, body
        return body.decode()

    def waits_for(self, path: str, words: str) -> str:
        """Ask until the page has these words."""
        until(lambda: words in self.ask(path)[2].decode(), f"{words!r} in {path}")
        return self.text(path)


@pytest.fixture
def alone(data: Path) -> Iterator[Pipeline]:
    """The pipeline without a Kafka."""
    pipeline = Pipeline(data, f"localhost:{free_port()}")
    yield pipeline
    pipeline.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def minute(number: int) -> datetime:
    """The time of an event with this number, if there is one a minute."""
    return EVENING + timedelta(minutes=number)


class Watched:
    """Pages of the browser; nothing of them may go elsewhere, or wrong."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.wrong: list[str] = []
        self.expected: list[str] = []  # parts of what the browser's console may say

    def open(self, url: str, **options: object) -> Page:
        """A page in a context of its own."""
        context = self.browser.new_context(**options)  # type: ignore[arg-type]
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        host = url.split("/")[2]
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda one: self.wrong.append(one.text) if one.type == "error" else None)
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                None if request.url.split("/")[2:3] == [host] else self.wrong.append(request.url)
            ),
        )
        page.goto(url)
        return page


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Watched]:
    """The browser; the test fails if a page asks another host, or has an error."""
    watched = Watched(chromium)
    yield watched
    for context in watched.contexts:
        context.close()
    wrong = [one for one in watched.wrong if not any(part in one for part in watched.expected)]
    assert wrong == []


def picture(*, has_star: bool, size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A dark sky, with a star in the box or without."""
    image = Image.new("RGB", size, SKY)
    if has_star:
        image.paste(STAR, BOX)
    return image


def save(image: Image.Image, path: Path, kind: str = "PNG") -> None:
    """Write an image, whatever the name says."""
    content = io.BytesIO()
    image.save(content, kind)
    path.write_bytes(content.getvalue())


def describe(
    event_id: str,
    received: datetime = EVENING,
    share: float = 4.16667,
    lines: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """An event's description, as the analysis writes it."""
    source, dash, number = event_id.rpartition("-")
    before = f"{source}{dash}{int(number) - 1:05d}"
    about = {
        "Image event": event_id,
        "Image": f"image_database/{event_id}.jpg",
        "Previous image": f"image_database/{before}.jpg",
        "Difference image": f"image_event_database/image_event_{event_id}.jpg",
        "Received": f"{received:%Y-%m-%d %H:%M:%S} UTC",
        "Size": "120 x 80",
        "RMS difference": "38.2 of 255",
        "Pixels changed": f"{share:.3g} % ({round(96 * share)} of 9600)",
        "Changed box": "20 x 20 pixels at x 40, y 20",
        **lines,
    }
    return "".join(f"{name}: {value}\n" for name, value in about.items())


def put_event(data: Path, event_id: str, received: datetime = EVENING, share: float = 4.16) -> None:
    """An event with its three pictures."""
    source, dash, number = event_id.rpartition("-")
    before = f"{source}{dash}{int(number) - 1:05d}"
    save(picture(has_star=True), data / f"image_database/{event_id}.jpg")
    save(picture(has_star=False), data / f"image_database/{before}.jpg")
    save(picture(has_star=True), data / f"image_event_database/image_event_{event_id}.jpg")
    put_description(data, event_id, describe(event_id, received, share))


def put_description(data: Path, event_id: str, text: str | bytes) -> None:
    """An event's description alone."""
    content = text if isinstance(text, bytes) else text.encode()
    (data / f"image_event_database/image_event_{event_id}.txt").write_bytes(content)


def ids(page: Page) -> list[str]:
    """The events that a page lists."""
    return page.locator("[data-event]").all_text_contents()


def pixel(stage: Locator, across: float, down: float) -> tuple[int, ...]:
    """The colour that is seen at a place of the stage, 0 to 1."""
    seen = Image.open(io.BytesIO(stage.screenshot())).convert("RGB")
    colour = seen.getpixel((int(across * seen.width), int(down * seen.height)))
    assert isinstance(colour, tuple)
    return colour


def is_like(colour: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) < 12 for one, other in zip(colour, wanted, strict=True))


def blink_page(browser: Watched, viewer: Viewer, event_id: str, **options: object) -> Page:
    """An event's page, its comparator ready."""
    page = browser.open(f"{viewer.url}/events/{event_id}", **options)
    expect(page.locator("#blink")).to_be_visible()
    return page


@pytest.mark.browser
def test_events_arrive_while_the_page_is_open(pipeline: Pipeline, browser: Watched) -> None:
    """An event is on the open page once it has happened, and said politely.

    Its pictures are there, too, and why the images beside it are no events.
    """
    viewer = Viewer(pipeline)
    page = browser.open(viewer.url)
    expect(page.locator("main")).to_contain_text("./run_pipeline.sh")
    pipeline.start("image_analysis.py").says("Kafka at")
    pipeline.receive("--count", "4")
    expect(page.locator("[data-event]")).to_have_text(["00003"], timeout=60_000)
    expect(page.locator("#news")).to_have_text("1 new event")
    expect(page.locator("#news")).to_have_attribute("role", "status")
    page.get_by_role("link", name="00003").click()
    expect(page.locator("#blink")).to_be_visible()
    widths = "images => images.map(image => image.naturalWidth)"
    assert all(page.locator("figure img").evaluate_all(widths))
    page.get_by_role("link", name="Timeline").click()
    newest = page.locator(".newest tbody tr")
    expect(newest.nth(0)).to_contain_text("Event: 99.9 % changed")
    expect(newest.nth(1)).to_contain_text("No event: the same bytes as the image before")
    expect(newest.nth(3)).to_contain_text("No event: first image of its source")
    pipeline.receive("--count", "4")
    expect(page.locator("#news")).to_contain_text("4 new images", timeout=60_000)
    expect(newest.nth(0)).to_contain_text("00003")
    page.get_by_role("link", name="Show").click()
    expect(newest.nth(0)).to_contain_text("00007")
    page.close()  # it would ask the viewer that has ended, and say so
    assert viewer.program.stop() == 0


@pytest.mark.browser
def test_the_space_bar_swaps(alone: Pipeline, browser: Watched) -> None:
    """One press shows the other image, the next one this one again; words say which."""
    put_event(alone.data, "00003")
    page = blink_page(browser, Viewer(alone), "00003")
    stage, shown = page.locator("#stage"), page.locator("#shown")
    for words, colour in [("Image 00003", STAR), ("The image before", SKY)] * 2:
        expect(shown).to_have_text(words)
        assert is_like(pixel(stage, 50 / 120, 30 / 80), colour)
        assert is_like(pixel(stage, 0.9, 0.5), SKY)
        page.keyboard.press(" ")
    page.locator("#swap").click()
    expect(shown).to_have_text("The image before")
    page.keyboard.press(" ")  # the button was clicked, and yet one press is one swap
    expect(shown).to_have_text("Image 00003")
    page.keyboard.down(" ")
    page.keyboard.down(" ")  # as a key repeats that is held
    expect(shown).to_have_text("The image before")


@pytest.mark.browser
def test_it_blinks_by_itself(alone: Pipeline, browser: Watched) -> None:
    """Once asked to, it goes on over events, not faster than twice a second.

    Whoever wants less motion isn't surprised by it.
    """
    put_event(alone.data, "00003")
    put_event(alone.data, "00007", EVENING + timedelta(minutes=1))
    page = blink_page(browser, Viewer(alone), "00003")
    page.get_by_label("Blink by itself").check()
    times = page.evaluate(
        """() => new Promise(done => {
            const times = [];
            new MutationObserver(() => times.push(performance.now()) == 5 && done(times))
                .observe(document.getElementById("shown"), {childList: true});
        })"""
    )
    assert (times[-1] - times[0]) / 4 > 450
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(
        f"http://localhost:{page.url.split(':')[2].split('/')[0]}/events/00007"
    )
    expect(page.get_by_label("Blink by itself")).to_be_checked()
    expect(page.locator("#shown")).to_have_text("The image before")
    page.emulate_media(reduced_motion="reduce")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text("Event 00003")
    expect(page.locator("#blink")).to_be_visible()
    expect(page.get_by_label("Blink by itself")).not_to_be_checked()


@pytest.mark.browser
def test_arrow_keys_go_through_events(alone: Pipeline, browser: Watched) -> None:
    """Left is older, right is newer, also within what was searched.

    At the ends nothing happens, and in a field the keys are the field's.
    """
    for minute, event_id in enumerate(("00003", "cam1-00003", "00007")):
        put_event(alone.data, event_id, EVENING + timedelta(minutes=minute))
    viewer = Viewer(alone)
    viewer.waits_for("/", "3 events")
    page = blink_page(browser, viewer, "00007")
    title = page.locator("h1")
    for key, event_id in [
        ("ArrowRight", "00007"),
        ("ArrowLeft", "cam1-00003"),
        ("ArrowLeft", "00003"),
    ]:
        page.keyboard.press(key)
        expect(title).to_have_text(f"Event {event_id}")
        expect(page.locator("#blink")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("Event cam1-00003")
    expect(page.locator("#blink")).to_be_visible()
    page.locator("#wipe").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#stage")).to_have_attribute("data-part", "1")
    expect(title).to_have_text("Event cam1-00003")
    page.goto(f"{viewer.url}/?source=-")
    assert ids(page) == ["00007", "00003"]
    page.get_by_role("link", name="00007").click()
    expect(page.locator("#blink")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("Event 00003")


@pytest.mark.browser
def test_wiping_and_zooming(alone: Pipeline, browser: Watched) -> None:
    """The slider shows the image before on its left; both images are zoomed together.

    Zoomed to the changed box, it fills what is seen; the whole image comes back.
    """
    put_event(alone.data, "00003")
    page = blink_page(browser, Viewer(alone), "00003")
    stage, wipe = page.locator("#stage"), page.get_by_label("Wipe")
    assert is_like(pixel(stage, 45 / 120, 30 / 80), STAR)
    wipe.fill("42")
    expect(wipe).to_have_attribute("aria-valuetext", "Left: the image before. Right: image 00003")
    assert is_like(pixel(stage, 45 / 120, 30 / 80), SKY)
    assert is_like(pixel(stage, 55 / 120, 30 / 80), STAR)
    page.get_by_label("Frame the box").uncheck()
    page.get_by_role("button", name="Changed box").click()
    expect(stage).to_have_attribute("data-scale", re.compile(r"3\.(19|20?)"))
    assert is_like(pixel(stage, 0.41, 0.15), SKY)  # the edge has stayed in its place
    assert is_like(pixel(stage, 0.43, 0.15), STAR)
    assert is_like(pixel(stage, 0.6, 0.85), STAR)
    assert is_like(pixel(stage, 0.1, 0.5), SKY)
    page.keyboard.press("0")
    expect(stage).to_have_attribute("data-scale", "1")
    page.keyboard.press("+")
    expect(stage).not_to_have_attribute("data-scale", "1")
    page.keyboard.press("-")
    expect(stage).to_have_attribute("data-scale", "1")


@pytest.mark.browser
def test_images_of_two_sizes(alone: Pipeline, browser: Watched) -> None:
    """They lie on each other at the top left, pixel on pixel, as they were compared."""
    put_event(alone.data, "00003")
    save(picture(has_star=False, size=(60, 160)), alone.data / "image_database/00002.jpg")
    page = blink_page(browser, Viewer(alone), "00003")
    stage = page.locator("#stage")
    assert is_like(pixel(stage, 50 / 120, 30 / 160), STAR)
    assert not is_like(pixel(stage, 0.25, 0.9), SKY)
    page.keyboard.press(" ")
    assert is_like(pixel(stage, 0.25, 0.8), SKY)
    assert not is_like(pixel(stage, 0.75, 0.25), SKY)


@pytest.mark.browser
def test_search(alone: Pipeline, browser: Watched) -> None:
    """Events are found by a part of their id, source, time and least change.

    What is asked for is in the address, and the form keeps it.
    """
    put_event(alone.data, "00003", EVENING, 0.5)
    put_event(alone.data, "00007", EVENING + timedelta(hours=1), 20)
    put_event(alone.data, "cam1-00003", EVENING + timedelta(hours=2), 60)
    viewer = Viewer(alone)
    viewer.waits_for("/", "3 events")
    page = browser.open(viewer.url)
    assert ids(page) == ["cam1-00003", "00007", "00003"]
    page.get_by_label("Id").fill("0003")
    page.get_by_label("Id").press("Enter")
    assert ids(page) == ["cam1-00003", "00003"]
    page.get_by_label("Source").select_option("(no name)")
    page.get_by_role("button", name="Search").click()
    assert ids(page) == ["00003"]
    expect(page.get_by_label("Id")).to_have_value("0003")
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("From").fill("2026-11-25T19:00:00")
    page.get_by_label("Before").fill("2026-11-25T20:00:00")
    page.get_by_role("button", name="Search").click()
    assert ids(page) == ["00007"]
    page.goto(f"{viewer.url}/?least=0.5")
    assert ids(page) == ["cam1-00003", "00007", "00003"]
    page.goto(f"{viewer.url}/?least=0.51")
    assert ids(page) == ["cam1-00003", "00007"]
    page.goto(f"{viewer.url}/?least=99")
    expect(page.locator("main")).to_contain_text("No event matches")


@pytest.mark.browser
def test_a_mistake_in_the_search(alone: Pipeline, browser: Watched) -> None:
    """It is said beside the form what is wrong with what was typed, which stays there.

    No event is shown that was not asked for, and a link leads to all of them.
    """
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    browser.expected = [" 400 "]
    page = browser.open(viewer.url)
    page.get_by_label("Id").fill("CAM1")
    page.get_by_label("Id").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text(
        "Id: “CAM1” is in no event's id; they are like 00003 or cam1-00003."
    )
    expect(page.get_by_label("Id")).to_have_value("CAM1")
    expect(page.get_by_label("Id")).to_have_attribute("aria-invalid", "true")
    assert ids(page) == []
    is_well_made(page)
    page.get_by_label("Id").fill("0003")
    page.get_by_role("button", name="Search").click()
    assert ids(page) == ["00003"]
    for query, label, typed in (
        ("from=yesterday", "From", "yesterday"),
        ("to=2026-13-01", "Before", "2026-13-01"),
        ("least=a+lot", "Changed at least", "a lot"),
        ("source=CAM", "Source", "CAM"),
    ):
        page.goto(f"{viewer.url}/?{query}&id=3")
        expect(page.get_by_role("alert")).to_contain_text(f"“{typed}” is no")
        expect(page.get_by_label(label)).to_have_value(typed)
        expect(page.get_by_label("Id")).to_have_value("3")
    page.get_by_role("link", name="Clear the search and show all events").click()
    assert ids(page) == ["00003"]


RUBBISH = {
    "/?id=%3Cscript%3E": "is in no event",
    "/?id=" + "1" * 3000: "is in no event",
    "/?source=CAM": "is no source",
    "/?source=%00": "is no source",
    "/?from=yesterday": "is no time",
    "/?from=0001-01-01": "is no time",
    "/?to=2026-13-01": "is no time",
    "/?to=%F0%9F%8C%83": "is no time",
    "/?from=2026-11-25T19:00&to=2026-11-25T18:00": "No time is before this one",
    "/?least=1e400": "is no share",
    "/?least=-1": "is no share",
    "/?least=NaN": "is no share",
    "/?older=1": "is no place",
    "/?newer=x.00003": "is no place",
    "/?older=" + "9" * 99 + ".00003": "is no place",
    "/?kind=dusk": "“dusk” is no kind; they are changed and scene changed",
    "/?sorce=cam1": "“sorce”; a search has id, source",
    "/?id=3&" + "x" * 30_000: "a search has id",
    "/timeline?from=0000-00-00": "is no time",
    "/timeline?source=%2e%2e": "is no source",
    "/timeline?older=1": "a search has id",
    "/set-aside?older=1.2": "is no place",
    "/set-aside?older=1.2.%D9%A3": "is no place",
    "/set-aside?newer=1.2.3": "“newer”, which is nothing here",
    "/events/00003?least=-1": "is no share",
    "/events/00003?x=y": "a search has id",
    "/events/" + "9" * 3000: "There is no event",
    "/events/00003/secret": "There is no picture",
}


def test_an_address_that_makes_no_sense(alone: Pipeline) -> None:
    """Whatever is asked for, a page says what is wrong in it, and has links that lead on."""
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    for path, words in RUBBISH.items():
        status, _, body = viewer.ask(path)
        page = body.decode()
        main = page.split("<main")[1]
        assert words in main, path
        assert "<script>alert" not in page
        assert re.search(r'<p><a href="/', main), path  # the way on is not only in the menu
        is_event = path.startswith("/events/00003?")
        assert status == (200 if is_event else 404 if "/events/" in path else 400), path
        assert ('<h2 id="pictures-title">' in page) == is_event, path
        assert ">00003</a>" not in main, path
    assert "selected>cam9</option>" in viewer.text("/?source=cam9")
    assert "No image of cam9 has been received" in viewer.text("/timeline?source=cam9")


@pytest.mark.browser
def test_timeline(alone: Pipeline, browser: Watched) -> None:
    """Images and events of a source are drawn, and in a table, whose rows lead to their events."""
    for minute in range(0, 50, 10):
        event_id = f"cam1-{minute + 1:05d}"
        put_event(alone.data, event_id, EVENING + timedelta(minutes=minute))
    put_event(alone.data, "00003", EVENING)
    for path in (alone.data / "image_database").iterdir():
        os.utime(path, (EVENING.timestamp(), EVENING.timestamp()))
    viewer = Viewer(alone)
    viewer.waits_for("/timeline?source=cam1", "5 of 10")
    page = browser.open(f"{viewer.url}/timeline?source=cam1")
    rows = page.locator("#counts tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.nth(4)).to_contain_text("2026-11-25 18:00:00")
    expect(rows.nth(4).locator("td")).to_have_text(["6", "1"])  # five aren't events, one is
    expect(page.locator(".chart canvas")).to_be_visible()
    assert page.locator(".chart canvas").evaluate(
        """canvas => new Set(new Uint32Array(canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size > 10"""
    )
    rows.nth(1).get_by_role("link").click()
    assert ids(page) == ["cam1-00031"]


def is_well_made(page: Page) -> None:
    """Nothing is kept from those who can't see the page, or hangs over its side."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_pages_are_for_everybody(alone: Pipeline, browser: Watched) -> None:
    """On phone and desktop, by day and night, axe finds nothing, and nothing scrolls sideways.

    Each page has one heading, a way past the menu, and a title of its own.
    """
    for number in range(3, 20, 4):
        put_event(alone.data, f"{number:05d}", EVENING + timedelta(minutes=number))
    put_event(alone.data, f"{'long_name_' * 6}-00003")
    put_description(alone.data, "00099", b"\xff\xfe" * 100)
    viewer = Viewer(alone)
    viewer.waits_for("/", "7 events")
    page = browser.open(viewer.url, reduced_motion="reduce")
    titles = []
    paths = ("/", "/?least=9", "/events/00007", "/events/00099", "/timeline?source=-", "/set-aside")
    for path in paths:
        page.goto(f"{viewer.url}{path}")
        if path == "/events/00007":
            expect(page.locator("#blink")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        expect(page.locator("h1")).to_have_count(1)
        titles.append(page.title())
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            for theme in ("light", "dark"):
                page.emulate_media(color_scheme=theme)
                is_well_made(page)
    assert len(set(titles)) == len(paths) - 1  # both lists have the same


@pytest.mark.browser
def test_by_keyboard_alone(alone: Pipeline, browser: Watched) -> None:
    """Keys alone lead from the list to an event and through its controls.

    Live news don't take the focus away.
    """
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    page = browser.open(viewer.url)
    link = page.get_by_role("link", name="00003")
    expect(link).to_be_visible()

    def tab_to(locator: Locator) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if locator.evaluate("one => one === document.activeElement"):
                return
        pytest.fail(f"{locator} isn't reached")

    tab_to(link)
    put_event(alone.data, "00007", EVENING + timedelta(minutes=1))
    expect(page.locator("#news")).to_contain_text("1 new event")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#blink")).to_be_visible()
    tab_to(page.locator("#stage"))
    tab_to(page.locator("#swap"))
    page.keyboard.press(" ")  # as a button is pressed: once
    expect(page.locator("#shown")).to_have_text("The image before")
    tab_to(page.get_by_role("button", name="Changed box"))
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).not_to_have_attribute("data-scale", "1")


@pytest.mark.browser
def test_without_javascript(alone: Pipeline, browser: Watched) -> None:
    """List, search, event and pictures work without."""
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    page = browser.open(viewer.url, java_script_enabled=False)
    page.get_by_label("Id").fill("3")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="00003").click()
    expect(page.locator("figure img")).to_have_count(3)
    expect(page.locator("#blink")).to_be_hidden()
    assert "needs JavaScript" in viewer.text("/events/00003")


@pytest.mark.browser
def test_directories_cleaned_while_a_page_is_open(alone: Pipeline, browser: Watched) -> None:
    """The list empties; an event's page says that it has gone, and is a 404 from then on."""
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    listed = browser.open(viewer.url)
    event = blink_page(browser, viewer, "00003")
    for name in ("image_database", "image_event_database"):
        for path in (alone.data / name).iterdir():
            path.unlink()
    expect(listed.locator("main")).to_contain_text("Nothing there yet")
    expect(event.locator("#connection")).to_contain_text("This event has gone")
    assert "There is no event" in viewer.text("/events/00003", 404)
    expect(listed.locator("#news")).to_be_empty()
    for name in ("image_database", "image_event_database"):
        shutil.rmtree(alone.data / name)
    put = alone.data / "image_event_database"
    put.mkdir()
    put_description(alone.data, "00007", describe("00007"))
    expect(listed.locator("[data-event]")).to_have_text(["00007"])
    browser.expected = [" 404 "]


def test_directories_that_are_not_there(alone: Pipeline) -> None:
    """Each is named, until it is there; what was in it stays shown while its disk is away."""
    for name in ("image_database", "image_event_database"):
        (alone.data / name).rmdir()
    viewer = Viewer(alone)
    viewer.waits_for("/", f"{alone.data}/image_event_database isn&#39;t there")
    assert "Nothing there yet" in viewer.text("/")
    (alone.data / "image_event_database").mkdir()
    viewer.waits_for("/", f"{alone.data}/image_database isn&#39;t there")
    (alone.data / "image_database").mkdir()
    put_event(alone.data, "00003")
    viewer.waits_for("/", "1 event,")
    until(lambda: "isn&#39;t there" not in viewer.text("/"), "both are there")
    away = alone.data.rename(alone.data.with_name("unmounted"))
    viewer.waits_for("/", f"{alone.data}/image_event_database isn&#39;t there")
    assert "1 event," in viewer.text("/")
    assert "can&#39;t be read now" in viewer.text("/events/00003", 503)
    viewer.text("/events/00004", 404)
    away.rename(alone.data)
    until(lambda: "isn&#39;t there" not in viewer.text("/"), "the disk is back")
    assert "image_database/00003.jpg" in viewer.text("/events/00003")
    assert viewer.program.stop() == 0


@pytest.mark.browser
def test_an_event_that_comes_back(alone: Pipeline, browser: Watched) -> None:
    """Its open page says that it has gone only as long as it has, and then what is not as shown."""
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    page = blink_page(browser, viewer, "00003")
    notice = page.locator("#connection")
    description = alone.data / "image_event_database/image_event_00003.txt"
    text = description.read_text()
    description.unlink()
    expect(notice).to_have_text("This event has gone: what is shown is not there any more.")
    description.write_text(text)
    expect(notice).to_be_empty()
    description.unlink()
    expect(notice).to_contain_text("This event has gone")
    save(picture(has_star=True, size=(300, 200)), alone.data / "image_database/00003.jpg")
    description.write_text(text.replace("38.2 of 255", "99.9 of 255"))
    expect(notice).to_contain_text("This event has changed since then.")
    is_well_made(page)
    notice.get_by_role("link", name="Show it as it is").click()
    expect(page.locator(".says")).to_contain_text("99.9 of 255")
    expect(notice).to_be_empty()
    browser.expected = [" 404 "]


@pytest.mark.browser
def test_rows_keep_their_places(alone: Pipeline, browser: Watched) -> None:
    """No link moves under the pointer, whatever comes and goes.

    What is newer waits until it is asked for, what has gone is crossed out where it was, and what
    slides in from below is no news. A notice has its place at the bottom edge.
    """
    for number in range(100, 160):
        put_description(alone.data, f"{number:05d}", describe(f"{number:05d}", minute(number)))
    viewer = Viewer(alone)
    viewer.waits_for("/", "60 events,")
    page = browser.open(viewer.url)
    news, rows, gone = page.locator("#news"), page.locator("#events tr"), page.locator(".gone")
    shown = [f"{number:05d}" for number in range(159, 109, -1)]
    assert ids(page) == shown
    places = "rows => rows.slice(0, 50).map(row => row.getBoundingClientRect().top)"
    before = rows.evaluate_all(places)

    def remove(*numbers: int) -> None:
        for number in numbers:
            (alone.data / f"image_event_database/image_event_{number:05d}.txt").unlink()

    page.locator("[data-event]").first.focus()
    remove(159, 158, 140)
    expect(gone).to_have_text([re.compile(f"00{number} gone") for number in (159, 158, 140)])
    expect(gone.get_by_role("link")).to_have_count(0)
    expect(page.locator("[data-event]").first).to_be_focused()
    expect(page.locator("#sum")).to_have_text("57 events, newest first")
    expect(news).to_be_empty()
    assert ids(page) == [*shown, "00109", "00108", "00107"]  # older ones have come below
    put_description(alone.data, "00140", describe("00140", minute(140)))
    expect(gone).to_have_count(2)
    put_description(alone.data, "00200", describe("00200", minute(200)))
    expect(news).to_have_text("1 new event Show")
    put_description(alone.data, "00201", describe("00201", minute(201)))
    put_description(alone.data, "00500", describe("00500", minute(130) + timedelta(seconds=1)))
    expect(news).to_have_text("2 new events, 1 came late Show")
    remove(201)
    expect(news).to_have_text("1 new event, 1 came late Show")
    page.route("**/version", lambda route: route.fulfill(status=503))
    expect(page.locator("#connection")).to_contain_text("The viewer doesn't answer")
    assert rows.evaluate_all(places) == before
    is_well_made(page)
    page.unroute("**/version")
    expect(page.locator("#connection")).to_be_empty()
    news.get_by_role("link", name="Show").click()
    expect(rows).to_have_count(50)
    assert ids(page)[:3] == ["00200", "00157", "00156"]
    assert "00500" in ids(page)
    for number in range(100, 160):
        if number not in (158, 159):
            remove(number)
    remove(200, 500)
    expect(page.locator("main")).to_contain_text("Nothing there yet")
    expect(page.locator("#news")).to_be_empty()
    browser.expected = [" 503 "]


@pytest.mark.browser
def test_many_pages_are_open(alone: Pipeline, browser: Watched) -> None:
    """A browser has six connections to a place; ten open pages all load, and all stay live."""
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    viewer.waits_for("/", "1 event,")
    pages = [browser.open(viewer.url)]
    for _ in range(9):
        pages.append(pages[0].context.new_page())
        pages[-1].goto(f"{viewer.url}/", timeout=10_000)
    put_event(alone.data, "00007", EVENING + timedelta(minutes=1))
    for page in pages:
        expect(page.locator("#news")).to_contain_text("1 new event")


def test_an_open_page_reads_pictures_seldom(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While much happens, an open event's page is made each second, and reads no picture again.

    One that has gone meanwhile is missed at once all the same.
    """
    put_event(data, "00003")
    images = Database(Location(str(data)), "image_database")
    site = Site(Index(), Database(Location(str(data)), "image_event_database"), images)
    request = Request(
        {"type": "http", "method": "GET", "path": "/events/00003", "query_string": b""}
        | {"headers": [], "path_params": {"id": "00003"}}
    )
    first = event_page(site, request).body
    with monkeypatch.context() as patch:
        patch.setattr(images.files, "read", None)
        assert event_page(site, request).body == first
    (data / "image_database/00002.jpg").unlink()
    assert b"00002.jpg is missing" in bytes(event_page(site, request).body)


def test_a_page_that_takes_long_holds_up_no_other() -> None:
    """While one query goes on, others are answered, and what is new is written."""
    index = Index()
    long = """
        WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 5000000)
        SELECT max(i) FROM n"""
    thread = Thread(target=index.select, args=(long,))
    thread.start()
    for number in range(20):
        index.write("INSERT INTO events (id, number) VALUES (?, ?)", [(f"{number:05d}", number)])
        assert index.select("SELECT count(*) FROM events")[0][0] == number + 1
    assert thread.is_alive()
    thread.join()


@pytest.mark.browser
def test_a_changed_scene(alone: Pipeline, browser: Watched) -> None:
    """It is marked wherever an event is shown, and found by its kind."""
    put_event(alone.data, "00003")
    put_event(alone.data, "00007")
    dusk = describe("00007", minute(1), 99.9, {"Kind": "scene changed"})
    put_description(alone.data, "00007", dusk)
    viewer = Viewer(alone)
    viewer.waits_for("/", "2 events")
    page = browser.open(viewer.url)
    expect(page.locator("#events th")).to_have_text(["00007 scene changed", "00003"])
    page.get_by_label("Kind").select_option("scene changed")
    page.get_by_role("button", name="Search").click()
    assert ids(page) == ["00007"]
    expect(page.get_by_label("Kind")).to_have_value("scene changed")
    is_well_made(page)
    page.get_by_role("link", name="00007").click()
    expect(page.locator("h1")).to_have_text("Event 00007 scene changed")
    is_well_made(page)
    page.goto(f"{viewer.url}/?kind=changed")
    assert ids(page) == ["00003"]
    page.goto(f"{viewer.url}/timeline")
    expect(page.locator(".newest")).to_contain_text("Event: scene changed, 99.9 % changed")


@pytest.mark.browser
def test_what_was_set_aside(pipeline: Pipeline, browser: Watched) -> None:
    """What stages could not use is there with its reason, at once.

    What strangers have sent is text and nothing else.
    """
    viewer = Viewer(pipeline)
    page = browser.open(f"{viewer.url}/set-aside")
    analysis = pipeline.start("image_analysis.py")
    pipeline.put("images", f"rubbish {NASTY}".encode(), NASTY.encode())
    analysis.says("set aside")
    letter = page.locator(".letter")
    expect(letter).to_have_count(1, timeout=30_000)
    expect(letter).to_contain_text("the message is no ReceivedImage")
    expect(letter).to_contain_text(NASTY)
    expect(letter).to_contain_text("images[")
    expect(page.get_by_role("link", name="Set aside")).to_contain_text("1")
    producer = KafkaProducer(bootstrap_servers=pipeline.bootstrap_servers)
    headers = [
        ("__connect.errors.topic", b"images"),
        ("__connect.errors.partition", NASTY.encode()),
        ("__connect.errors.offset", b"-1\r\nSet-Cookie: a=b"),
        ("__connect.errors.stage", NASTY.encode()),
        ("__connect.errors.time", NASTY.encode()),
        ("__connect.errors.exception.message", b"\xff\xfe" + NASTY.encode() * 1000),
    ]
    producer.send("dead-letters", b"\x00\xff" * 100_000, NASTY.encode(), headers).get(10)
    producer.send("dead-letters", None, b"key alone").get(10)
    for number in range(60):
        producer.send("dead-letters", f"letter {number}".encode())
    producer.close()
    expect(page.locator("header .count")).to_have_text("63", timeout=30_000)
    page.get_by_role("link", name="Older").click()
    expect(letter.filter(has_text="Set-Cookie")).to_contain_text(NASTY)
    assert page.locator("main img, main script").count() == 0
    is_well_made(page)
    page.get_by_role("link", name="Newest").click()
    expect(letter).to_have_count(50)


@pytest.mark.browser
def test_hostile_files(alone: Pipeline, browser: Watched) -> None:
    """Whatever descriptions say, no page runs anything or shows a file from elsewhere.

    Damaged ones and those without their pictures are shown, and say what is wrong.
    """
    data = alone.data
    secret = data.parent / "secret.png"
    save(picture(has_star=True), secret)
    for number, path in enumerate(
        (
            "../secret.png",
            str(secret),
            "image_database/../../secret.png",
            "image_database/link.png",
            "image_database/folder/secret.png",
            "image_event_database/image_event_00003.txt",
            "image_database/",
            "image_database/..",
            "image_database/\x00",
            f"image_database/{'x' * 5000}",
            "",
        )
    ):
        put_description(
            data, f"bad-{number:05d}", describe(f"bad-{number:05d}", lines={"Image": path})
        )
    (data / "image_database/link.png").symlink_to(secret)
    (data / "image_database/folder").symlink_to(secret.parent)
    put_event(data, "00003")
    (data / "image_event_database/image_event_00003.jpg").unlink()
    put_description(
        data, "nasty-00003", describe("nasty-00003", lines={NASTY: NASTY, "Image": NASTY})
    )
    put_description(data, "nasty-00004", b"\xff\x00\x1b[31m" + NASTY.encode())
    put_description(data, "nasty-00005", b"")
    put_description(data, "nasty-00006", f"{NASTY}\n" * 10_000)
    odd = describe(
        "nasty-00007", lines={"Received": "9999-12-31 23:59:59 UTC", "Changed box": NASTY}
    )
    put_description(data, "nasty-00007", odd.replace("4.17 % (400", f"{'9' * 18} % (0"))
    (data / "image_event_database/image_event_nasty-00008.txt").symlink_to("/etc/passwd")
    os.mkfifo(data / "image_event_database/image_event_nasty-00009.txt")
    (data / f"image_event_database/image_event_{quote('<b>', safe='')}.txt").touch()
    viewer = Viewer(alone)
    viewer.waits_for("/", "18 events")
    page = browser.open(viewer.url)
    expect(page.locator("[data-event]")).to_have_count(18)
    expect(page.get_by_text("description damaged")).to_have_count(4)
    for number in range(3, 9):
        page.goto(f"{viewer.url}/events/nasty-{number:05d}")
        expect(page.locator("h1")).to_have_text(f"Event nasty-{number:05d}")
        assert page.locator("main script, main img[src=x]").count() == 0
        assert "root:" not in page.content()
    for number in range(11):
        status, headers, body = viewer.ask(f"/events/bad-{number:05d}/image")
        assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8"), number
        assert secret.read_bytes() not in body
        page.goto(f"{viewer.url}/events/bad-{number:05d}")
        expect(page.locator(".no-picture").first).to_contain_text("No picture.")
    page.goto(f"{viewer.url}/events/00003")
    expect(page.locator(".no-picture")).to_have_text(
        "No picture. image_event_database/image_event_00003.jpg is missing."
    )
    page.goto(f"{viewer.url}/timeline?source=nasty")
    expect(page.locator("#counts")).to_be_visible()
    browser.expected = [" 404 "]


def test_requests_of_strangers(alone: Pipeline) -> None:
    """No address, header or method leads to a file, somebody's browser, or a traceback.

    Each answer tells browsers to load nothing else and to guess nothing.
    """
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    host = {"Host": f"localhost:{viewer.port}"}
    for path in (
        "/events/../../etc/passwd",
        "/events/..%2f..%2f..%2fetc%2fpasswd",
        "/events/%2e%2e/%2e%2e/etc/passwd/image",
        "/static/../index.py",
        "/static/..%2findex.py",
        "/static/%2e%2e/%2e%2e/server.py",
        "/static/",
        "/templates/base.html",
        "//etc/passwd",
        "/events/00003%0d%0aSet-Cookie:%20a=b",
        "/events/00003%00",
        "/events/00003/",
        "/events/00003/../../x",
        "/events/00003/secret",
        "/events/nasty-00009",
        "/events/0003",
        "/events/CAM-00003",
        f"/events/{'0' * 10}",
        f"/events/{quote(NASTY)}",
        f"/events/{quote('٠٠٠٠٣')}",
    ):
        status, headers, body = viewer.ask(path, headers=host)
        assert status in (400, 404), path
        assert not {name.lower() for name in headers} & {"set-cookie", "location"}, path
        assert b"root:" not in body
        assert b"Traceback" not in body
        assert b"<script>" not in body
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        for path in ("/", "/events/00003", "/static/viewer.js", "/version"):
            assert viewer.ask(path, method)[0] == 405, (method, path)
    for name in (
        "evil.example",
        "localhost.evil.example",
        "192.0.2.1",
        "localhost@evil",
        "",
        "[::1",
    ):
        assert viewer.ask("/", headers={"Host": name})[0] == 400, name
    for name in ("localhost", "127.0.0.1:1", f"[::1]:{viewer.port}", "LOCALHOST"):
        assert viewer.ask("/", headers={"Host": name})[0] == 200, name
    for path in ("/", "/events/00003", "/events/00003/image", "/static/viewer.js", "/nowhere"):
        status, headers, body = viewer.ask(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
        found, headers_only, nothing = viewer.ask(path, "HEAD")
        assert (found, nothing) == (status, b"")
        assert headers_only["content-type"] == headers["content-type"]
    allowed = ("--allowed-host", "Cam-Server.lan", "--allowed-host", "sky")
    everywhere = Viewer(alone, "--host", "0.0.0.0", *allowed)  # noqa: S104
    for name, status in {
        "192.0.2.1": 200,
        "[2001:db8::1]:80": 200,
        f"cam-server.LAN:{everywhere.port}": 200,
        "sky": 200,
        "evil.example": 400,
        "cam-server.lan.evil.example": 400,
    }.items():
        assert everywhere.ask("/", headers={"Host": name})[0] == status, name
    refusal = everywhere.ask("/", headers={"Host": "evil.example:8000"})[2]
    assert b"start the viewer with --allowed-host evil.example;" in refusal
    assert b"\x1b" not in everywhere.ask("/", headers={"Host": "evil\x1b[31m"})[2]
    with socket.create_connection(("localhost", viewer.port)) as raw:
        raw.sendall(b"\x16\x03\x01 rubbish\r\n\r\n")
        assert b" 400 " in raw.recv(1000)
    assert viewer.program.stop() == 0
    assert "Traceback" not in viewer.program.output


@pytest.mark.slow
def test_pictures_that_no_browser_shows(alone: Pipeline) -> None:
    """TIFF, 16 bits and CMYK are drawn anew, the two of a pair alike; others are as they are.

    The type is that of the content, whatever the name says.
    """
    database = alone.data / "image_database"
    put_event(alone.data, "00003")
    put_event(alone.data, "00005")
    put_event(alone.data, "00007")
    for name, star in (("00004", 1000), ("00005", 3000)):
        deep = np.full((80, 120), 1000, np.uint16)
        deep[20:40, 40:60] = star
        save(Image.fromarray(deep), database / f"{name}.jpg", "TIFF")
    save(picture(has_star=True).convert("CMYK"), database / "00007.jpg", "JPEG")
    (database / "00006.jpg").write_bytes(b"<html><script>alert(1)</script>")
    viewer = Viewer(alone)

    def shown(path: str) -> tuple[str, Image.Image]:
        status, headers, body = viewer.ask(path)
        assert status == 200, body
        return headers["content-type"], Image.open(io.BytesIO(body)).convert("RGB")

    status, headers, body = viewer.ask("/events/00003/image")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert body == (database / "00003.jpg").read_bytes()
    known = {"If-None-Match": headers["etag"]}
    assert viewer.ask("/events/00003/image", headers=known)[::2] == (304, b"")
    kind, image = shown("/events/00005/image")
    assert kind == "image/jpeg"
    assert image.getpixel((50, 30)) == (255, 255, 255)
    assert image.getpixel((5, 5)) == (0, 0, 0)
    kind, before = shown("/events/00005/previous")  # alone, it would have had no stretch
    assert before.getextrema() == ((0, 0),) * 3
    kind, image = shown("/events/00007/image")
    assert kind == "image/jpeg"
    assert is_like(image.getpixel((5, 5)), SKY)  # type: ignore[arg-type]
    assert shown("/events/00003/small")[1].width <= 120
    status, headers, body = viewer.ask("/events/00007/previous")
    assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert b"is no image" in body


@pytest.mark.browser
def test_pictures_that_are_missing_or_broken(alone: Pipeline, browser: Watched) -> None:
    """The event's page says in words what each is, and has nothing to blink unless both are whole.

    The list and the page cause no error in the browser.
    """
    whole = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(whole, "JPEG")
    cases = {
        b"": "is no image of",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>": "is no image of",
        whole.getvalue()[: len(whole.getvalue()) // 2]: "is a damaged image",
        b"SIMPLE  =" + bytes(2880): "",
        None: "is missing",
    }
    for number, content in enumerate(cases):
        for source, path in (
            ("a", f"image_database/a-{10 * number + 1:05d}.jpg"),
            ("b", f"image_database/b-{10 * number:05d}.jpg"),
            ("c", f"image_event_database/image_event_c-{10 * number + 1:05d}.jpg"),
        ):
            put_event(alone.data, f"{source}-{10 * number + 1:05d}")
            (alone.data / path).unlink()
            if content is not None:
                (alone.data / path).write_bytes(content)
    viewer = Viewer(alone)
    viewer.waits_for("/", f"{3 * len(cases)} events,")
    page = browser.open(viewer.url)
    expect(page.locator(".events img")).to_have_count(3 * len(cases))
    page.wait_for_load_state("networkidle")
    for number, words in enumerate(cases.values()):
        for source in "abc":
            page.goto(f"{viewer.url}/events/{source}-{10 * number + 1:05d}")
            expect(page.locator(".no-picture")).to_have_count(1)
            expect(page.locator(".no-picture")).to_contain_text(words)
            expect(page.locator("figure img")).to_have_count(2)
            expect(page.locator("#blink")).to_have_count(int(source == "c"))
    is_well_made(page)


@pytest.mark.browser
def test_blinking_pictures_that_no_browser_shows(alone: Pipeline, browser: Watched) -> None:
    """TIFFs of 16 bits, of four bands, and compressed FITS mosaics blink like any other pictures.

    They are counted as images, whatever their names end with.
    """

    def make(source: str, number: int) -> bytes:
        planes = [np.full((80, 120), 1000, np.uint16) for _ in range(4)]
        if number == 3:
            planes[3][20:40, 40:60] = 3000
        if source == "grey":
            return tiff(planes[3:])
        if source == "bands":
            return tiff(planes, photometric=2, extra=[0])
        parts = [fits.CompImageHDU(plane[::-1].astype(np.int32)) for plane in planes[2:]]
        content = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), *parts]).writeto(content)
        return content.getvalue()

    endings = {"grey": "tif", "bands": "tiff", "mosaic": "fits.fz"}
    for source, ending in endings.items():
        put_event(alone.data, f"{source}-00003")
        names = {}
        for number, line in ((2, "Previous image"), (3, "Image")):
            path = f"image_database/{source}-{number:05d}.{ending}"
            (alone.data / path).with_suffix("").with_suffix(".jpg").unlink(missing_ok=True)
            (alone.data / path).write_bytes(make(source, number))
            names[line] = path
        put_description(alone.data, f"{source}-00003", describe(f"{source}-00003", lines=names))
    viewer = Viewer(alone)
    viewer.waits_for("/timeline", "1 of 2")
    for source in endings:
        assert "1 of 2" in viewer.text(f"/timeline?source={source}")
        viewer.text(f"/events/{source}-00003")  # to unpack FITS takes seconds on a busy machine
        page = blink_page(browser, viewer, f"{source}-00003")
        stage = page.locator("#stage")
        assert is_like(pixel(stage, 50 / 120, 30 / 80), (255, 255, 255)), source
        page.keyboard.press(" ")
        assert is_like(pixel(stage, 50 / 120, 30 / 80), (0, 0, 0)), source
        expect(page.locator("figure img")).to_have_count(3)


@pytest.mark.slow
def test_a_hundred_thousand_events(alone: Pipeline) -> None:
    """The first page comes while they are still read; each is on one page, in order, and found."""
    count = 100_000
    sources = ("", "cam1-", "cam2-", "cam3-")
    for number in range(count):
        event_id = f"{sources[number % 4]}{number:05d}"
        received = EVENING + timedelta(seconds=number // 10)
        put_description(alone.data, event_id, describe(event_id, received, 0.01 * (number % 7 + 1)))
    viewer = Viewer(alone)
    assert "<h1>Events</h1>" in viewer.text("/")
    until(lambda: f"{count:,} events" in viewer.text("/"), "all in the index")
    page, newest = viewer.text("/"), count - 1
    for _ in range(3):  # pages
        found = [
            line.split("data-event>")[1].split("<")[0]
            for line in page.splitlines()
            if "data-event>" in line
        ]
        assert found == [f"{sources[n % 4]}{n:05d}" for n in range(newest, newest - 50, -1)]
        newest -= 50
        page = viewer.text(page.split('rel="next" href="')[1].split('"')[0])
    page = viewer.text(page.split('rel="prev" href="')[1].split('"')[0])
    assert f">{sources[(count - 101) % 4]}{count - 101}<" in page
    assert "1 event found" in viewer.text("/?id=cam1-00001")
    assert "25,000 events found" in viewer.text("/?source=cam3")
    assert "10 events found" in viewer.text("/?from=2026-11-25T18:00:01&to=2026-11-25T18:00:02")
    assert f"{count // 7:,} events found" in viewer.text("/?least=0.07")
    assert "0 of 25,000" not in viewer.text("/timeline?source=cam1")
    assert ">cam3-00003<" in viewer.text("/events/cam3-00003?source=cam3").replace("Event ", ">")


def test_it_ends_when_told_to(alone: Pipeline) -> None:
    """With pages open it ends within seconds, with 0; what can't be is one line."""
    viewer = Viewer(alone)
    viewer.waits_for("/", f"Kafka at {alone.bootstrap_servers} can&#39;t be reached")
    with ExitStack() as closing:
        for _ in range(20):
            connection = http.client.HTTPConnection("localhost", viewer.port, timeout=30)
            closing.callback(connection.close)
            connection.request("GET", "/version")
            assert connection.getresponse().read().isdigit()
        taken = alone.command("view", "--port", str(viewer.port))
        assert taken.ends() == 1
        told = f"cannot serve at 127.0.0.1 port {viewer.port}: Address already in use"
        assert taken.lines == [f"view: {told}; choose another --port or --host"]
        assert viewer.program.stop() == 0
    assert len(viewer.program.lines) == 2
    for arguments in (
        *(["--port", "0"], ["--port", "http"], ["--host", "a b"], ["x"]),
        *(["--allowed-host", "http://sky"], ["--allowed-host", "sky:8000"], ["--allowed-host", ""]),
    ):
        assert " view: " in alone.usage_error("view", *arguments)


@pytest.mark.slow
def test_kafka_comes_goes_and_is_another_one(alone: Pipeline, tmp_path: Path) -> None:
    """All that is neither ends the viewer nor floods its terminal; it makes no topics itself.

    What another Kafka had set aside is forgotten. One that speaks another language is said.
    """
    put_event(alone.data, "00003")
    viewer = Viewer(alone)
    refused = Viewer(alone, "--bootstrap-servers", f"localhost:{viewer.port}")
    viewer.waits_for("/set-aside", "can&#39;t be reached: nothing listens there")
    port = int(alone.bootstrap_servers.split(":")[1])
    nothing = "Nothing was set aside"
    for name in ("one", "another"):
        kafka = embedded_kafka.start(tmp_path / name, port)
        until(lambda: nothing in viewer.text("/set-aside"), "what another had is forgotten")
        admin = KafkaAdminClient(bootstrap_servers=alone.bootstrap_servers)
        assert "dead-letters" not in admin.list_topics()
        admin.create_topics({"dead-letters": {"num_partitions": 3}})
        admin.wait_for_topics(["dead-letters"])
        admin.close()
        producer = KafkaProducer(bootstrap_servers=alone.bootstrap_servers)
        producer.send("dead-letters", f"from {name}".encode(), partition=2).get(10)
        producer.close()
        viewer.waits_for("/set-aside", f"from {name}")
        kafka.stop()
        viewer.waits_for("/set-aside", "can&#39;t be reached")
    refused.waits_for("/", "Kafka at")
    for one in (viewer, refused):
        assert ">00003<" in one.text("/")
        assert one.program.stop() == 0
        assert len(one.program.lines) == 2


@pytest.mark.slow
def test_an_object_store(stored: StoredPipeline, network: FaultyNetwork) -> None:
    """It is shown like directories; while it is away, what was known stays, and that is said."""
    stored.environment["AWS_MAX_ATTEMPTS"] = "1"  # it is asked again soon enough
    viewer = Viewer(stored)
    stored.start("image_analysis.py").says("Kafka at")
    stored.receive("--count", "4")
    viewer.waits_for("/", "1 event,")
    for name in ("image", "previous", "difference", "small"):
        assert viewer.ask(f"/events/00003/{name}")[1]["content-type"] == "image/jpeg"
    viewer.waits_for("/timeline", "No event: the same bytes as the image before")
    network.becomes(Faults(refuse=True))
    viewer.waits_for("/", "What is shown is what was there before")
    assert ">00003<" in viewer.text("/")
    assert "can&#39;t be read now" in viewer.text("/events/00003", 503)
    network.becomes(Faults())
    until(lambda: "was there before" not in viewer.text("/"), "the store is back")
    assert "No picture" not in viewer.text("/events/00003")
    assert viewer.program.stop() == 0
    assert len(viewer.program.lines) == 2
