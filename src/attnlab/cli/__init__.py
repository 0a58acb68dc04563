"""The command line. Nothing here imports torch before the words that were typed are known to make sense."""

from attnlab.cli.dispatch import main

__all__ = ["main"]
