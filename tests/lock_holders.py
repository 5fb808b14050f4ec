"""A process that holds the lock of a folder."""

import contextlib
import subprocess
import sys

HOLDER = "import sys\nfrom vicinal._lock import locked\nwith locked(sys.argv[1]): print('held', flush=True); input()"


@contextlib.contextmanager
def held_elsewhere(folder):
    """Another process holds the lock of a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()
