"""The command line: parse, call the library, print."""

from vicinal.cli.main import main

__all__ = ["main"]
