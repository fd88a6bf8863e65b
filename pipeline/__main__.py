"""The commands that look after the pipeline: `python -m pipeline COMMAND [options]`.

    audit           prove that files, topics and alerts agree; --repair mends what can be
    dead-letters    list what was set aside, or send chosen ones back after a fix
    schema          print the JSON Schema of the messages

COMMAND --help says more.
"""

import sys

from commands import audit, dead_letters, schema
from pipeline import say

COMMANDS = {"audit": audit.main, "dead-letters": dead_letters.main, "schema": schema.main}


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
