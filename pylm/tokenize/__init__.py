"""Text files to a dataset folder."""

from pylm.tokenize.job import Outcome, Progress, tokenize
from pylm.tokenize.settings import Settings

__all__ = ["Outcome", "Progress", "Settings", "tokenize"]
