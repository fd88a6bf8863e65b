"""Run Apache Kafka in the foreground: `python -m embedded_kafka [--port N]`."""

import argparse
import signal
import sys
from pathlib import Path

from embedded_kafka import DEFAULT_PORT, JARS, KafkaStartError, start


def main() -> None:
    """Start Kafka, say when it is ready, and end with it; Ctrl-C and SIGTERM stop it."""
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broker = None
    try:
        broker = start(
            options.directory,
            options.port,
            options.property,
            options.jars,
            listen=options.listen,
            has_log=False,
        )
        is_container = Path("/.dockerenv").exists()
        print(
            f"Apache Kafka is ready at localhost:{options.port}, topics in {options.directory}; "
            f"Ctrl-C{' or docker stop' if is_container else ''} stops it",
            flush=True,
        )
        status = broker.process.wait()
    except KafkaStartError as error:
        sys.exit(f"embedded_kafka: {error}")
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if broker:
            broker.process.terminate()
            broker.process.wait()  # without a limit: Docker and systemd have one of their own
            broker.archive.keep()
    else:
        sys.exit(f"embedded_kafka: Kafka ended with status {status}; the lines above may say why")


if __name__ == "__main__":
    main()
