"""Whatever is raised, the command line ends in one sentence; a traceback goes into a file."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.cli import commands, main, recipes

UNEXPECTED = (
    r"vicinal: unexpected {}; this is a fault of vicinal, please report it with (\S+), which holds the traceback\n"
)


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VICINAL_TRACEBACK", raising=False)
    return tmp_path


def ended(capsys, *arguments):
    """The exit code and what was printed."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code, capsys.readouterr()


def raising(act):
    def replacement(*_, **__):
        return act()

    return replacement


def deep():
    return deep()


def library_exit():
    sys.exit("a library gave up")


def fails_assertion():
    raise AssertionError("3 != 4\nand much more")


def inside_jax():
    return jnp.ones(3) @ jnp.ones(4)


def breaks_the_runtime():
    raise jax.errors.JaxRuntimeError("INTERNAL: the device does not answer")


ERRORS = {
    "KeyError: 'x'": lambda: {}["x"],
    "ZeroDivisionError: .*": lambda: 1 // 0,
    "RecursionError: maximum recursion depth exceeded.*": deep,
    "AssertionError: 3 != 4": fails_assertion,
    "TypeError: .*": inside_jax,
    "ValueError: .*could not be broadcast.*": lambda: np.ones(3) + np.ones(4),
    "ValueError: invalid literal for int.*": lambda: int("x"),
    "TypeError: unsupported operand.*": lambda: None + 1,
    "UnicodeDecodeError: .*": lambda: b"\xff".decode(),
    "SystemExit: a library gave up": library_exit,
    "SystemExit: 0": lambda: sys.exit(0),
    "jax.errors.JaxRuntimeError: INTERNAL.*|.*RuntimeError: INTERNAL.*": breaks_the_runtime,
    "StopIteration": lambda: next(iter(())),
}


@pytest.mark.parametrize("words", ERRORS)
def test_an_unexpected_error_is_kept_in_a_file(words, capsys, monkeypatch, somewhere):
    monkeypatch.setattr(recipes, "recipe", raising(ERRORS[words]))
    code, printed = ended(capsys, "cite", "il")
    assert (code, printed.out) == (1, "")
    found = re.fullmatch(UNEXPECTED.format(f"({words})"), printed.err)
    assert found, printed.err
    kept = (somewhere / found[found.lastindex]).read_text()
    assert kept.startswith("vicinal cite il\npython 3.")
    assert "\njax " in kept
    assert "Traceback (most recent call last):" in kept
    assert re.fullmatch(words, kept[kept.rindex(words.split(":")[0].split(".")[-1]) :].splitlines()[0]) or "|" in words


def test_the_file_is_in_the_folder_of_the_run(capsys, monkeypatch, somewhere):
    def train(settings, folder, **_):
        (folder / "metrics.jsonl").touch()
        return 1 // 0

    monkeypatch.setattr(commands.comparing, "train", train)
    code, printed = ended(capsys, "train", "--folder", "mine")
    assert code == 1
    (kept,) = (somewhere / "mine").glob("error-*.txt")
    assert f"with {kept.relative_to(somewhere)}," in printed.err
    assert "ZeroDivisionError" in kept.read_text()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(capsys, monkeypatch, somewhere, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    monkeypatch.setattr(recipes, "recipe", raising(lambda: 1 // 0))
    somewhere.chmod(0o500)
    assert f"with {elsewhere}" in ended(capsys, "cite", "il")[1].err
    elsewhere.chmod(0o500)
    code, printed = ended(capsys, "cite", "il")
    assert code == 1
    assert printed.err.endswith("no file could be written for its traceback, which VICINAL_TRACEBACK=1 prints\n")


def test_no_place_for_the_file(capsys, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vicinal.cli.errors.write_text_atomically", refuse)
    monkeypatch.setattr(recipes, "recipe", raising(lambda: 1 // 0))
    code, printed = ended(capsys, "cite", "il")
    assert (code, printed.err.count("\n")) == (1, 1)
    assert printed.err.endswith("no file could be written for its traceback, which VICINAL_TRACEBACK=1 prints\n")


def test_the_traceback_is_shown_if_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("VICINAL_TRACEBACK", "1")
    code, printed = ended(capsys, "cite", "il2")
    assert code == 2
    assert printed.err.startswith("Traceback (most recent call last):")
    assert printed.err.splitlines()[-1].startswith("vicinal: expected a recipe")


def many_lines():
    raise OSError(5, "Input/output error")


def test_refusals_of_the_system_are_mistakes(capsys, monkeypatch, somewhere):
    monkeypatch.setattr(recipes, "recipe", raising((somewhere / "missing").read_text))
    code, printed = ended(capsys, "cite", "il")
    assert (code, printed.err) == (
        2,
        f"vicinal: expected to read or write '{somewhere / 'missing'}', got: No such file or directory\n",
    )
    monkeypatch.setattr(recipes, "recipe", raising(many_lines))
    code, printed = ended(capsys, "cite", "il")
    assert (code, printed.err) == (2, "vicinal: expected to read or to print, got: Input/output error\n")
    assert not list(somewhere.iterdir())


def test_a_message_of_many_lines_is_cut(capsys):
    code, printed = ended(capsys, "cite", "x\n" * 5000)
    assert code == 2
    assert printed.err.count("\n") == 1
    assert len(printed.err) < 1100


def test_warnings_and_letters_of_a_process(somewhere):
    program = "import warnings, vicinal.cli, vicinal.cli.recipes as recipes\n"
    program += "recipes.recipe = lambda name: (warnings.warn('ahead', RuntimeWarning), recipes.missing)\n"
    program += "import sys; sys.argv = ['vicinal', 'cite', 'il']; vicinal.cli.main()\n"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, second = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout, first) == (1, "", "vicinal: warning: ahead")
    assert second.startswith("vicinal: unexpected AttributeError: module 'vicinal.cli.recipes' has no attribute")
    narrow = os.environ | {"PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-m", "vicinal", "cite", "dfa"], capture_output=True, text=True, env=narrow)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
@pytest.mark.parametrize("words", [["--help"], ["cite", "il"]])
def test_an_output_that_takes_nothing(words):
    command, buffered = [sys.executable, "-m", "vicinal", *words], os.environ | {"PYTHONUNBUFFERED": ""}
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    said = "vicinal: expected to read or to print, got: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (2, said)
