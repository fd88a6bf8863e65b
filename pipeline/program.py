"""Where a program ends: the one place that turns errors into a line and an exit status.

Only a program that can't be waited for ends elsewhere, by `os._exit`: when it takes too long to
stop (`stop_signal`), and when Kafka stays away (`availability`).
"""

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
    text, status = "", 0
    try:
        status = main() or 0
    except FatalError as error:
        text, status = str(error), error.status
    except InvalidInput as error:
        text, status = str(error), 2
    except KafkaError as error:
        text, status = f"Kafka: {one_line(error)}; try again", 1
    except KeyboardInterrupt:
        status = 130
    if text:
        print(text, file=sys.stderr)
    sys.exit(status)
