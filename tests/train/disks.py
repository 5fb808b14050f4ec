"""Disks that are full, and disks that are read-only."""

import contextlib
import os
import signal
import subprocess

import pytest


@contextlib.contextmanager
def no_file_above(size):
    """The operating system refuses files above a size, as a quota would; a write up to it is cut."""
    resource = pytest.importorskip("resource", reason="limits on the size of files are a POSIX feature")
    previous, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)


@contextlib.contextmanager
def disk_at(folder, options="size=1m"):
    """A small disk in memory."""
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if not hasattr(os, "geteuid") or os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder):
    """The disk of a folder is full; the last page of each file may still have room."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        ballast.unlink()
