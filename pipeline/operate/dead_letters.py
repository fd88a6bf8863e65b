"""Dead letters: list what was set aside, show some of it, send it back once the cause is mended."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from pipeline.errors import FatalError
from pipeline.messages import DEAD_LETTERS
from pipeline.own_kafka import find_kafka
from pipeline.settings import Parser
from pipeline.stop_signal import StopSignal
from pipeline.stream.connection import Kafka
from pipeline.stream.dead_letters import CONSUMED, SENT_BACK, DeadLetter
from pipeline.stream.topic_reader import TopicReader
from pipeline.stream.transactions import transact, transactional_producer
from pipeline.terminal import printable, say
from pipeline.wording import count_of

CLOCK_DIFFERENCE = 3600  # seconds that the clocks of two brokers may differ


def main(arguments: Sequence[str]) -> None:
    """List, show or send dead letters."""
    parser = Parser(
        "List what was set aside, look at one, or send some back to the topic that they came from "
        "once what was wrong is mended.",
        "python -m pipeline dead-letters",
    )
    actions = ("list", "show", "send")
    about = "list all, show some with all that is known of them, or send some back; default: list"
    parser.add_argument("action", nargs="?", choices=actions, default="list", help=about)
    about = "which to show or send, as the list has them: PARTITION:OFFSET, as in 0:12"
    parser.add_argument("ids", nargs="*", metavar="ID", help=about)
    parser.add_argument(
        "--all", action="store_true", help="send back all that were not sent back yet"
    )
    options = parser.parse_args(arguments)
    for name in options.ids:
        if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,18}", name):
            parser.error(f"{name!r} is no dead letter's id; the list has them, as in 0:12")
    if options.action == "list" and (options.ids or options.all):
        parser.error("list shows all of them; to see one, give show and its id, as in show 0:12")
    if options.action != "list" and bool(options.ids) == options.all:
        parser.error(f"{options.action} which? give ids{', or --all' * (options.action == 'send')}")
    if options.action == "show" and options.all:
        parser.error("--all is for send; give show the ids to show, as in show 0:12")
    settings = find_kafka(parser.settings(options), "dead-letters")
    kafka = Kafka(settings, StopSignal(status=1))
    if options.action == "send":
        send(kafka, options.ids)
    else:
        with kafka.connect(TopicReader) as topics:
            letters = read_letters(topics)
            if options.action == "show":
                for letter in chosen(letters, options.ids):
                    show(letter)
            else:
                list_all(letters, sent_back(topics, letters))


def read_letters(topics: TopicReader) -> dict[str, DeadLetter]:
    """All dead letters by their ids, oldest first."""
    records = sorted(topics.read_all(DEAD_LETTERS), key=lambda record: record.timestamp)
    letters = map(DeadLetter, records)
    return {letter.id: letter for letter in letters}


def sent_back(topics: TopicReader, letters: Mapping[str, DeadLetter]) -> set[str]:
    """The ids of the letters that were sent back: their topics have records that say so."""
    if not letters:
        return set()
    since = min(letter.record.timestamp for letter in letters.values()) / 1000 - CLOCK_DIFFERENCE
    return {
        (value or b"").decode(errors="replace")
        for topic in sorted(CONSUMED)
        for record in topics.read(topics.since(topic, since), topics.end_offsets(topic))
        for name, value in record.headers
        if name == SENT_BACK
    }


def chosen(letters: Mapping[str, DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    """The letters with these ids. Raises `FatalError` if there is no letter with one of them."""
    for name in ids:
        if name not in letters:
            raise FatalError(f"there is no dead letter {name}; the list has those that there are")
    return [letters[name] for name in dict.fromkeys(ids)]


def list_all(letters: Mapping[str, DeadLetter], sent: set[str]) -> None:
    """Print a line for each letter."""
    for letter in letters.values():
        say(f"{letter}{'  (sent back)' if letter.id in sent else ''}")
    say(f"{count_of(len(letters), 'dead letter')}, {len(sent & {*letters})} sent back")


def show(letter: DeadLetter) -> None:
    """Print a letter with all its headers and its value."""
    say(str(letter))
    for name, value in letter.record.headers:
        say(f"  {printable(name)}: {_header_value(value or b'')}")
    value = letter.record.value
    shown = "(none)" if value is None else value.decode(errors="backslashreplace")
    say(f"  value, {count_of(len(value or b''), 'byte')}: {printable(shown)}")


def _header_value(value: bytes) -> str:
    """A header's value: a text as it is, other bytes, such as a SHA-256, in hexadecimal."""
    with suppress(UnicodeDecodeError):
        return printable(value.decode())
    return value.hex()


def send(kafka: Kafka, ids: Sequence[str]) -> None:
    """Send letters back to their topics in one transaction: these, or all not yet sent back."""

    def make(kafka: Kafka, closing: ExitStack) -> tuple[Any, TopicReader]:
        # The producer before the reader: nobody else can send a letter from here on.
        return transactional_producer(kafka, "dead-letters", closing), TopicReader(kafka, closing)

    with kafka.connect(make) as (producer, topics):
        letters = read_letters(topics)
        sent = sent_back(topics, letters)
        wanted = chosen(letters, ids) or [
            letter for letter in letters.values() if letter.is_ours and letter.id not in sent
        ]
        for letter in wanted:
            if letter.is_file:
                reason = "is a file: give the file to image_receiving.py again"
            elif not letter.is_ours:
                reason = "is not from our stages: nothing says where it belongs"
            elif letter.id in sent:
                reason = "was sent back already; what failed again has a new id"
            else:
                continue
            raise FatalError(f"{letter.id} {reason}")
        if wanted:
            transact(producer, [letter.outgoing() for letter in wanted])
        for letter in wanted:
            say(f"{letter.id}  sent back to {letter.origin['topic']}")
        say(f"{len(wanted)} sent back")
