"""The command line. It parses, calls the library and prints."""

from vicinal.cli.main import main

__all__ = ["main"]
