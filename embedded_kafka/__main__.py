"""Run Apache Kafka in the foreground: `python -m embedded_kafka [--port N]`."""

import argparse
import os
import sys
from pathlib import Path

from embedded_kafka import DEFAULT_PORT, JARS, KafkaStartError, prepare


def main() -> None:
    """Prepare the directory and become Java."""
    parser = argparse.ArgumentParser(prog="python -m embedded_kafka", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".kafka"), help="topics go here")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--listen", default="127.0.0.1", help="address; default: %(default)s")
    parser.add_argument(
        "--property",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a property of Kafka's, over ours; may be given several times",
    )
    parser.add_argument(
        "--jars",
        type=Path,
        default=JARS,
        metavar="FILE",
        help="the list of the jars of another version of Kafka; default: %(default)s",
    )
    options = parser.parse_args()
    try:
        command = prepare(
            options.directory, options.port, options.listen, options.property, options.jars
        )
    except KafkaStartError as error:
        sys.exit(f"embedded_kafka: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"Apache Kafka on localhost:{options.port}, topics in {options.directory}", flush=True)
    os.chdir(options.directory)  # whose name may have what Kafka's properties can't
    os.execv(command.java[0], [*command.java, *command.arguments])


if __name__ == "__main__":
    main()
