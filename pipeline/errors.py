"""The errors that this project raises: a class for each way to react to an error.

The text of an error is one line for people: what is wrong, the value seen, and what to do about it.
"""


class PipelineError(Exception):
    """Any of the errors below."""


class InvalidInput(PipelineError):
    """A message, a file or a setting is wrong, and no retry can change that.

    A stage sets the message or file aside as a dead letter and goes on.
    """


class TransientError(PipelineError):
    """A fault of the machine or the network that somebody can mend while the program waits.

    What failed is tried again (see `retrying`) for as long as it takes.
    """


class FatalError(PipelineError):
    """The program can't go on: it ends with the text and this exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class Stopped(FatalError):
    """The program was asked to end, so that it ends without a word."""

    def __init__(self, status: int) -> None:
        super().__init__("", status)
