"""Where a program ends: the one place that turns errors into a line and an exit status."""

import sys
from collections.abc import Callable
from typing import NoReturn

from kafka.errors import KafkaError

from pipeline.errors import FatalError, InvalidInput
from pipeline.terminal import one_line


def run_program(main: Callable[[], int | None]) -> NoReturn:
    """Run a program, and end with what it returns or with the status of the error that it raises.

    0 is success, 1 a failure at run time, 2 wrong usage or settings.
    """
    try:
        status = main() or 0
    except FatalError as error:
        status = _failed(str(error), error.status)
    except InvalidInput as error:
        status = _failed(str(error), 2)
    except KafkaError as error:
        status = _failed(f"Kafka: {one_line(error)}; try again", 1)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _failed(text: str, status: int) -> int:
    if text:
        print(text, file=sys.stderr)
    return status
