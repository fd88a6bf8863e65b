"""What the audit finds, and how it repairs what can be repaired."""

from collections.abc import Callable
from typing import Any

from pipeline.errors import InvalidInput
from pipeline.messages import Message
from pipeline.store.database import Database
from pipeline.store.names import digest
from pipeline.stream.transactions import outgoing_message
from pipeline.terminal import say

COUNTED = ("images", "true changes", "events", "alerts", "set aside", "waiting", "repeats")
NOT_JUDGED = ("other masks", "not judged")
KINDS = ("lost", "expired", "twice", "wrong")

Repair = Callable[[], None]


class Findings:
    """The counts, the faults of each kind, and what was repaired."""

    def __init__(self, is_repairing: bool) -> None:
        self.counts = dict.fromkeys((*COUNTED, *NOT_JUDGED), 0)
        self.faults: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self.repaired: list[str] = []
        self.outgoing: list[dict[str, Any]] = []  # messages that repair something
        self.explained: set[str] = set()  # files that have a reason to exist
        self.lost_events: set[bytes] = set()  # by the `cause` that their alerts have
        self._is_repairing = is_repairing

    def fault(self, kind: str, text: str, repair: Repair | None = None) -> None:
        """Repair the fault, if that is wanted and possible, or else note it."""
        if self._is_repairing and repair:
            repair()
            self.repaired.append(text)
        else:
            self.faults[kind].append(text)

    def check_file(
        self, database: Database, path: str, sha256: str | None, content: bytes | None
    ) -> None:
        """Note a fault if the file is missing or damaged; `content` may be what it should be."""
        try:
            database.read(path, sha256)
        except InvalidInput as reason:
            repair = None
            if content is not None and sha256 in (None, digest(content)):
                repair = write_file(database, path, content)
            self.fault("lost", str(reason), repair)

    def send(self, topic: str, message: Message, header: str, value: bytes) -> Repair:
        """A repair that sends a message with this header."""
        outgoing = {**outgoing_message(topic, message), "headers": [(header, value)]}
        return lambda: self.outgoing.append(outgoing)

    def say_all(self, ended_transactions: int) -> None:
        """Print a line for each repair and fault, and the table of the counts."""
        for text in self.repaired:
            say(f"mended  {text}")
        for kind, texts in self.faults.items():
            for text in texts:
                say(f"{kind:6}  {text}")
        rows = {**self.counts, **{kind: len(texts) for kind, texts in self.faults.items()}}
        if self._is_repairing:
            rows["mended"] = len(self.repaired) + ended_transactions
        say("")
        for name, number in rows.items():
            say(f"  {name:14} {number}")


def write_file(database: Database, path: str, content: bytes) -> Repair:
    """A repair that writes a file."""

    def write() -> None:
        database.write(path, content)
        database.sync()

    return write
