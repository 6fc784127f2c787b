"""Text files to a dataset folder."""

from pylm.tokenize.job import Outcome, Progress, tokenize, train_vocabulary
from pylm.tokenize.settings import Settings

__all__ = ["Outcome", "Progress", "Settings", "tokenize", "train_vocabulary"]
