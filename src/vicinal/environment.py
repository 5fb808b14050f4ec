"""Versions and machine, for reports."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

import vicinal


def environment() -> dict[str, Any]:
    """Versions and machine, as plain data."""
    return {
        "vicinal": vicinal.__version__,
        "commit": _commit(),
        "jax": jax.__version__,
        "equinox": eqx.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _commit() -> str | None:
    """The commit of the checkout, marked if files changed; None for an installed library."""
    here = Path(vicinal.__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        if subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True).returncode:
            return None
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + (" with changes" if changed.stdout else "")


def now() -> str:
    """The current time, for reports."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
