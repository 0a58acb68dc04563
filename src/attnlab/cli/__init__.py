"""The command line. Arguments are checked before torch is imported."""

from attnlab.cli.dispatch import main

__all__ = ["main"]
