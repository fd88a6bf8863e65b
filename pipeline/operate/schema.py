"""Schema: the JSON Schema of the messages, for programs in any language."""

import json
from argparse import ArgumentParser
from collections.abc import Sequence

from pipeline.messages import schema
from pipeline.terminal import say


def main(arguments: Sequence[str]) -> None:
    """Print the schema."""
    description = "Print the JSON Schema of the messages in each topic."
    ArgumentParser("python -m pipeline schema", description=description).parse_args(arguments)
    say(json.dumps(schema(), indent=2))
