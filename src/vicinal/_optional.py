"""Packages that an extra brings: imported when something needs them."""

import importlib
from typing import Any


def optional(module: str, user: str, package: str, extra: str) -> Any:
    """A module of a package that need not be installed.

    Args:
        module: Its name, as in an import.
        user: What needs it, for the sentence.
        package: What it is called where it is installed from.
        extra: The extra of vicinal that brings it.

    Raises:
        ImportError: If it is not there; the sentence says how to get it.

    Example:
        >>> optional("no_such_module", "Drawing", "no-such-package", "drawings")
        Traceback (most recent call last):
        ImportError: Drawing needs no-such-package; pip install 'vicinal[drawings]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{user} needs {package}; pip install 'vicinal[{extra}]'") from error
