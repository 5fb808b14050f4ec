"""Measures what the tests notice: breaks one equation at a time, and runs the tests that should fail.

    python tests/mutations.py [--only PATTERN] [--list]

A mutation is data, in `tests/mutations/*.toml`: a file, a text that occurs in it once, what replaces the text, the
tests that should notice, and what it breaks. The change is made in a copy, never in the working tree. A mutation is
caught if one of its tests fails that passes on the unchanged copy. The exit code is 1 if fewer than 95 % of the
mutations are caught, or if one cannot be tried.
"""

import argparse
import compileall
import dataclasses
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENOUGH = 0.95
LIMIT = 1800  # seconds of a run of tests
PASSED, FAILED = 0, 1  # exit codes of pytest; others say that it did not get as far as running tests


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One change of the source.

    Attributes:
        breaks: What it breaks, in a phrase; also its name.
        file: The file, from the root of the repository.
        old: The text to replace, which occurs once.
        new: The text in its place.
        tests: Arguments of pytest: files, and `-k` to narrow them down.
    """

    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, source: str) -> str:
        """The source with the change.

        Raises:
            ValueError: If the text to replace does not occur exactly once.
        """
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"{self.breaks!r} is stale: expected its text once in {self.file}, got {found} times")
        return source.replace(self.old, self.new)


def mutations() -> list[Mutation]:
    """All mutations, from the files beside this one."""
    found = []
    for path in sorted(Path(__file__).with_suffix("").glob("*.toml")):
        for item in tomllib.loads(path.read_text())["mutation"]:
            found.append(Mutation(**item | {"tests": tuple(item["tests"])}))
    return found


class UntriedError(Exception):
    """Why a run says nothing about a mutation."""


class Runner:
    """Runs tests on a copy of the source and the tests, one change at a time.

    Args:
        folder: A new folder for the copy.
        compiled: A folder for compiled programs, which all runs share.
    """

    def __init__(self, folder: Path, compiled: Path):
        for name in ("src", "tests"):  # what is edited meanwhile makes no difference
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        # Byte code that is compared with a hash of its source cannot be that of another mutation.
        hashed = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(folder / "src", quiet=1, invalidation_mode=hashed)
        self._folder = folder
        self._environment = os.environ | {
            "PYTHONPATH": str(folder / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        # What tests/conftest.py asks a process of its own for, once for all runs.
        flags = self._run(["-c", "import conftest, os; print(os.environ['XLA_FLAGS'])"], cwd=folder / "tests")
        self._environment |= {"XLA_FLAGS": flags.stdout.strip(), "VICINAL_TESTS": "running"}
        found = self._run(["-c", "import vicinal; print(vicinal.__file__)"]).stdout.strip()
        if not Path(found).is_relative_to(folder):
            raise SystemExit(f"expected to import the copy in {folder}, got {found}; take it out of the way")

    def noticed_by(self, mutation: Mutation) -> str | None:
        """The first test that fails with a mutation; None if it survives.

        Raises:
            UntriedError: If the tests do not run to an end.
        """
        path = self._folder / mutation.file
        source = path.read_text()
        path.write_text(mutation.apply(source))
        try:
            code, failed, said = self._pytest("-x", *mutation.tests)
        except subprocess.TimeoutExpired:
            raise UntriedError(f"the tests took more than {LIMIT} s") from None
        finally:
            path.write_text(source)
        if code != PASSED and not failed:
            raise UntriedError(f"pytest ended with code {code}:\n{said}")
        return failed[0] if failed else None

    def failing(self, tests: set[str]) -> set[str]:
        """Which of some tests fail on the unchanged source too, so that they say nothing about a mutation."""
        code, failed, said = self._pytest(*sorted(tests)) if tests else (PASSED, [], "")
        if code != PASSED and not failed:
            raise SystemExit(f"pytest ended with code {code} on the unchanged source:\n{said}")
        return set(failed)

    def _pytest(self, *arguments: str) -> tuple[int, list[str], str]:
        """The exit code, the tests that failed, and the end of what was printed."""
        done = self._run(["-m", "pytest", "-n", "0", "-q", "-rfE", "-p", "no:cacheprovider", *arguments])
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
        return done.returncode, failed if done.returncode == FAILED else [], done.stdout[-4000:]

    def _run(self, arguments: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command, settings = [sys.executable, *arguments], {"capture_output": True, "text": True, "timeout": LIMIT}
        return subprocess.run(command, cwd=cwd or self._folder, env=self._environment, **settings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PATTERN", help="those whose file or phrase matches")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    given = parser.parse_args()
    chosen = [m for m in mutations() if re.search(given.only, f"{m.file}: {m.breaks}")]
    if given.list or not chosen:
        print(*(f"{m.file}: {m.breaks}" for m in chosen), f"{len(chosen)} mutations", sep="\n")
        return 0 if chosen else 2
    noticed: dict[Mutation, str | None] = {}
    compiled = Path(tempfile.gettempdir()) / f"vicinal-mutations-compiled-{os.getuid()}"
    with tempfile.TemporaryDirectory(prefix="vicinal-mutations-") as folder:
        runner = Runner(Path(folder), compiled)
        for mutation in sorted(chosen, key=lambda m: m.tests):
            begun = time.monotonic()
            try:
                test = noticed[mutation] = runner.noticed_by(mutation)
                word, more = ("SURVIVES", "") if test is None else ("noticed ", f": {test}")
            except UntriedError as error:
                word, more = "UNTRIED ", f": {error}"
            print(f"{word} {time.monotonic() - begun:4.0f} s  {mutation.breaks}{more}", flush=True)
        failing = runner.failing({test for test in noticed.values() if test is not None})
    caught = [m for m, test in noticed.items() if test is not None and test not in failing]
    survivors = [m for m, test in noticed.items() if test is None]
    untried = len(chosen) - len(caught) - len(survivors)
    print(f"{len(caught)} of {len(chosen)} caught, {len(caught) / len(chosen):.1%}; {untried} could not be tried")
    for mutation in survivors:
        print(f"survivor: {mutation.breaks} ({' '.join(mutation.tests)})")
    for test in sorted(failing):
        print(f"fails on the unchanged source too: {test}")
    return 0 if len(caught) >= ENOUGH * len(chosen) and not untried else 1


if __name__ == "__main__":
    sys.exit(main())
