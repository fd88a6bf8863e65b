"""The errors that this project raises itself: one tree, by what is to be done about them."""


class PipelineError(Exception):
    """An error whose text is the reason, in one line, for people."""


class InvalidInput(PipelineError):
    """A message, a file or a setting is wrong, and no retry can change that."""


class TransientError(PipelineError):
    """A fault of the machine or the network, which goes away when somebody mends it."""


class FatalError(PipelineError):
    """The program can't go on; the text says what to do before it is started again."""
