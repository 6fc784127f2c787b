"""pylm: from a text file to a trained language model."""

__version__ = "0.1.0"
