"""Dead letters: list what was set aside, look at one, send some back after a fix."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from pipeline import moment, say
from pipeline.connection import Kafka, Stop, text
from pipeline.messages import DEAD_LETTERS, IMAGE_EVENTS, IMAGES, NOTIFICATIONS
from pipeline.settings import Parser
from pipeline.stream import ABOUT, printable, transact, transactional_producer
from pipeline.topics import Topics

SENT_BACK = "dead-letter"  # header of a record that was sent back: which dead letter it was
TAKEN = (IMAGES, IMAGE_EVENTS, NOTIFICATIONS)  # the topics that stages take


class Letter:
    """A dead letter, and what its headers say."""

    def __init__(self, record: ConsumerRecord) -> None:
        self.record = record
        self.id = f"{record.partition}:{record.offset}"
        self.about = {  # ours are the last ones
            name.removeprefix(ABOUT): printable((value or b"").decode(errors="backslashreplace"))
            for name, value in record.headers
            if name.startswith(ABOUT)
        }

    def __str__(self) -> str:
        sent = moment(self.record.timestamp / 1000)
        when = self.about.get("time", f"{sent:%Y-%m-%dT%H:%M:%SZ}")
        if self.is_file:
            path = printable((self.record.value or b"").decode(errors="backslashreplace"))
            return f"{self.id}  {when}  {self.about['stage']}  file {path}  {self.reason}"
        if not self.is_ours:
            return f"{self.id}  {when}  not from our stages"
        where = "{topic}[{partition}] {offset}".format(**self.about)
        key = f"key {self.about.get('key', '(none)')!r}"
        return f"{self.id}  {when}  {self.about['stage']}  {where}  {key}  {self.reason}"

    @property
    def reason(self) -> str:
        """Why it was set aside."""
        return self.about.get("exception.message", "")

    @property
    def is_ours(self) -> bool:
        """Whether a stage of ours has sent it, from a topic that it takes."""
        return self.about.get("topic") in TAKEN and {"partition", "offset", "stage"} <= {
            *self.about
        }

    @property
    def is_file(self) -> bool:
        """Whether it is a file's path that receiving could not use, and never was a message."""
        return self.about.get("stage") == "image_receiving" and "topic" not in self.about

    def outgoing(self) -> dict[str, Any]:
        """The record that it was, as kafka-python sends it."""
        headers = [
            (name, value)
            for name, value in self.record.headers
            if not name.startswith(ABOUT) and name != SENT_BACK
        ]
        return {
            "topic": self.about["topic"],
            "key": self.record.key,
            "value": self.record.value,
            "headers": [*headers, (SENT_BACK, self.id.encode())],
        }


def main(arguments: Sequence[str]) -> None:
    """List, show or send dead letters."""
    parser = Parser(
        "List what was set aside, look at one, or send some back to the topic that they came from "
        "once what was wrong is mended.",
        "python -m pipeline dead-letters",
    )
    actions = ("list", "show", "send")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="default: list")
    parser.add_argument("ids", nargs="*", metavar="ID", help="as listed: PARTITION:OFFSET")
    parser.add_argument("--all", action="store_true", help="send all that weren't sent back yet")
    options = parser.parse_args(arguments)
    for name in options.ids:
        if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,18}", name):
            parser.error(f"{name!r} is no dead letter's id; the list has them, as in 0:12")
    if options.action == "list" and (options.ids or options.all):
        parser.error("list takes no ids")
    if options.action != "list" and bool(options.ids) == options.all:
        parser.error(f"{options.action} which? give ids{', or --all' * (options.action == 'send')}")
    if options.action == "show" and options.all:
        parser.error("show takes ids")
    kafka = Kafka(parser.settings(options), Stop(status=1))
    try:
        if options.action == "send":
            send(kafka, options.ids)
        else:
            topics, closing = kafka.connect(lambda inner: Topics(kafka, inner))
            with closing:
                letters = read(topics)
                if options.action == "show":
                    for letter in chosen(letters, options.ids):
                        show(letter)
                else:
                    list_all(letters, sent_back(topics, letters))
    except KafkaError as error:
        sys.exit(f"Kafka: {text(error)}; try again")


def read(topics: Topics) -> dict[str, Letter]:
    """All dead letters by their ids, oldest first."""
    records = topics.read(topics.beginnings(DEAD_LETTERS), topics.ends(DEAD_LETTERS))
    letters = map(Letter, sorted(records, key=lambda record: record.timestamp))
    return {letter.id: letter for letter in letters}


def sent_back(topics: Topics, letters: Mapping[str, Letter]) -> set[str]:
    """The ids of those that were sent back."""
    if not letters:
        return set()
    since = min(letter.record.timestamp for letter in letters.values()) / 1000
    return {
        (value or b"").decode(errors="replace")
        for topic in TAKEN
        for record in topics.read(topics.since(topic, since), topics.ends(topic))
        for name, value in record.headers
        if name == SENT_BACK
    }


def chosen(letters: Mapping[str, Letter], ids: Sequence[str]) -> list[Letter]:
    """The letters of these ids; ends the program if there is one that isn't there."""
    for name in ids:
        if name not in letters:
            sys.exit(f"there is no dead letter {name}; the list has those that there are")
    return [letters[name] for name in dict.fromkeys(ids)]


def list_all(letters: Mapping[str, Letter], gone: set[str]) -> None:
    """One line each."""
    for letter in letters.values():
        say(f"{letter}{'  (sent back)' if letter.id in gone else ''}")
    say(f"{len(letters)} dead letters, {len(gone & {*letters})} of them sent back")


def show(letter: Letter) -> None:
    """All that there is of one."""
    say(str(letter))
    for name, value in letter.record.headers:
        say(f"  {printable(name)}: {printable((value or b'').decode(errors='backslashreplace'))}")
    value = letter.record.value
    shown = "(none)" if value is None else value.decode(errors="backslashreplace")
    say(f"  value, {len(value or b'')} bytes: {printable(shown)}")


def send(kafka: Kafka, ids: Sequence[str]) -> None:
    """Send these, or all, back to where they came from, in one transaction."""

    def make(closing: ExitStack) -> tuple[Any, Topics]:
        # The producer first: from here on nobody else can send what we find is not sent yet.
        return transactional_producer(kafka, "dead-letters", closing), Topics(kafka, closing)

    (producer, topics), closing = kafka.connect(make)
    with closing:
        letters = read(topics)
        gone = sent_back(topics, letters)
        wanted = chosen(letters, ids) or [
            one for one in letters.values() if one.is_ours and one.id not in gone
        ]
        for letter in wanted:
            if letter.is_file:
                sys.exit(f"{letter.id} is a file: give the file to image_receiving.py again")
            if not letter.is_ours:
                sys.exit(f"{letter.id} is not from our stages: nothing says where it belongs")
            if letter.id in gone:
                sys.exit(f"{letter.id} was sent back already; what failed again has a new id")
        if wanted:
            transact(producer, [letter.outgoing() for letter in wanted])
        for letter in wanted:
            say(f"{letter.id}  sent back to {letter.about['topic']}")
        say(f"{len(wanted)} sent back")
