"""Imports optional packages, which extras install, when they are needed."""

import importlib
from typing import Any


def optional(module: str, user: str, package: str, extra: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module: The name of the module.
        user: What needs it, for the message.
        package: The name of the package for pip.
        extra: The extra of vicinal that installs it.

    Raises:
        ImportError: If it is not installed; the message says how to install it.

    Example:
        >>> optional("no_such_module", "Drawing", "no-such-package", "drawings")
        Traceback (most recent call last):
        ImportError: Drawing needs no-such-package; pip install 'vicinal[drawings]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{user} needs {package}; pip install 'vicinal[{extra}]'") from error
