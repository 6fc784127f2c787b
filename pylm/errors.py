"""One error tree: a message says where, what was expected, what was found and what to do."""


class PylmError(Exception):
    """Anything a user can mend; the command line prints its message in one line and exits with `exit_code`."""

    exit_code: int = 1


class ConfigError(PylmError):
    """A setting that cannot be, alone or with another."""


class DataError(PylmError):
    """A missing, damaged, newer or unsuitable input, dataset or tokenizer."""


class RunError(PylmError):
    """A run that cannot be started, resumed or read."""


class TrainingError(PylmError):
    """Training had to stop: the message names the last good checkpoint."""


class Interrupted(PylmError):
    """Ctrl-C or SIGTERM: what could be saved is saved, and the message holds the command that resumes."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SaidElsewhere(PylmError):
    """Another process of the training has said why it ends: this one exits without a word."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("said by another process")
        self.exit_code = exit_code
