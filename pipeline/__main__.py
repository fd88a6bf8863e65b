"""The commands that look after the pipeline: python -m pipeline COMMAND [options].

To run and to see it:
    run             the three programs, until every image went all the way; ./run_pipeline.sh
                    without a command is the same
    view            pages that show the image events as they happen
    chaos           kill everything that can die while images flow, then account for every image

While it runs:
    lag             is it keeping up? what waits for each stage, since when, and how many work on it
    why             what was decided about an image, and by which numbers: why 00004
    notifications   what was sent to which recipients, and when; what waits or was given up

When something went wrong:
    dead-letters    what was set aside and why; once that is mended: dead-letters send --all
    audit           do images, events, alerts and topics agree? names what is lost or wrong;
                    --repair makes lost files again and sends lost messages

Seldom:
    clean           empty the mock databases in an object store (elsewhere ./clean_image_dirs.sh)
    schema          the JSON Schema of the messages, for programs of your own

COMMAND --help says more. ./run_pipeline.sh COMMAND is the same, and installs what is missing. Kafka
and the files are found as the programs find them: localhost:9092 and this directory, unless
KAFKA_BOOTSTRAP_SERVERS and PIPELINE_DATA or options say otherwise. Where nothing listens, a command
starts the embedded Kafka, with the topics that ./run_pipeline.sh has left, and ends it.
"""

import sys
from importlib import import_module

from pipeline.errors import InvalidInput
from pipeline.program import run_program
from pipeline.terminal import say

# Only the named command's module is imported: some of them import slowly.
COMMANDS = {
    "audit": "pipeline.operate.audit.command",
    "chaos": "pipeline.operate.chaos",
    "clean": "pipeline.operate.clean",
    "dead-letters": "pipeline.operate.dead_letters",
    "lag": "pipeline.operate.lag",
    "notifications": "pipeline.operate.notifications",
    "run": "pipeline.operate.run",
    "schema": "pipeline.operate.schema",
    "view": "pipeline.viewer.server",
    "why": "pipeline.operate.why",
}


def main() -> int | None:
    """Run the named command; returns its exit status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        say((__doc__ or "").strip())
        return 0
    if name not in COMMANDS:
        names = ", ".join(COMMANDS)
        raise InvalidInput(f"python -m pipeline: {name!r} is no command; there are {names}")
    status: int | None = import_module(COMMANDS[name]).main(arguments)
    return status


if __name__ == "__main__":
    run_program(main)
