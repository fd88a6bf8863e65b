"""The commands that look after the pipeline: `python -m pipeline COMMAND [options]`.

    audit           prove that files, topics and alerts agree; --repair mends what can be
    clean           empty the mock databases, where they are in an object store
    dead-letters    list what was set aside, or send chosen ones back after a fix
    lag             show what waits for each stage
    schema          print the JSON Schema of the messages

COMMAND --help says more.
"""

import sys

from commands import audit, clean, dead_letters, lag, schema
from pipeline import say

COMMANDS = {
    "audit": audit.main,
    "clean": clean.main,
    "dead-letters": dead_letters.main,
    "lag": lag.main,
    "schema": schema.main,
}


def main() -> None:
    """Become the command that is named."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        say((__doc__ or "").strip())
    elif name in COMMANDS:
        COMMANDS[name](arguments)
    else:
        names = ", ".join(COMMANDS)
        print(f"python -m pipeline: {name!r} is no command; there are {names}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
