"""One error tree: a message says where, what was expected, what was found and what to do."""


class PylmError(Exception):
    """Anything a user can mend; the command line prints its message in one line and exits with 1."""


class ConfigError(PylmError):
    """A setting that cannot be, alone or with another."""


class DataError(PylmError):
    """A missing, damaged, newer or unsuitable input, dataset or tokenizer."""


class RunError(PylmError):
    """A run that cannot be started, resumed or read."""


class TrainingError(PylmError):
    """Training had to stop: the message names the last good checkpoint."""
