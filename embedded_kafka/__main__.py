"""Run Apache Kafka in the foreground: `python -m embedded_kafka [--port N]`."""

import argparse
import ctypes
import os
import signal
import sys
from pathlib import Path

from embedded_kafka import DEFAULT_PORT, JARS, KafkaStartError, prepare

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Prepare the directory and become Java."""
    parser = argparse.ArgumentParser(prog="python -m embedded_kafka", description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".kafka"), help="topics go here")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s")
    parser.add_argument("--listen", default="127.0.0.1", help="address; default: %(default)s")
    parser.add_argument("--parent", type=int, help="end when this parent process ends (Linux)")
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
    if options.parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != options.parent:
            sys.exit("the parent has ended")
    try:
        java = prepare(
            options.directory, options.port, options.listen, options.property, options.jars
        )
    except KafkaStartError as error:
        sys.exit(f"embedded_kafka: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"Apache Kafka on localhost:{options.port}, topics in {options.directory}", flush=True)
    os.chdir(options.directory)  # whose name may have what Kafka's properties can't
    os.execv(java[0], java)


if __name__ == "__main__":
    main()
