"""Parse the words of a command into a call of its function; report a mistake in one sentence."""

import contextlib
import dataclasses
import functools
import io
import itertools
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from vicinal._nearest import did_you_mean

_WHOLE = ("--set", "--vary")  # a comma there separates the values of one number

_HABITS = {
    "lr": "learning-rate",
    "lrs": "learning-rates",
    "dataset": "data",
    "layers": "model.sizes",
    "hidden": "model.sizes",
    "widths": "model.sizes",
    "method": "rule",
    "algorithm": "rule",
    "recipe": "rule",
    "output": "folder",
    "out": "folder",
    "o": "folder",
    "dir": "folder",
    "bs": "batch-size",
    "batch": "batch-size",
    "criterion": "loss",
}
"""Names of options in other programs -> ours."""


def parse(function: Callable[..., None], name: str, words: list[str]) -> Callable[[], None]:
    """Parse the words of a command.

    Args:
        function: The command's function; its parameters are the options.
        name: The command's name, as typed.
        words: The words behind the name.

    Returns:
        The call of the function, without arguments; of nothing, if the words ask for help, which is printed.

    Raises:
        ValueError: If the words do not fit the function.
    """
    options = options_of(function)
    lists = {option for option, is_list in options.items() if is_list}
    words = spread(words, lists)
    for word in words:
        if re.match(r"--?[A-Za-z]", word) and _option(word) not in {*options, "--help", "-h"}:
            raise ValueError(_unknown(word, name, options))
    _check_given(words, lists | {*_WHOLE})

    @functools.wraps(function)
    def later(*positional: Any, **keywords: Any) -> Any:  # called by the parser; the command itself may then print
        return functools.partial(function, *positional, **keywords)

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(later, prog=f"vicinal {name}", args=words)
    except SystemExit as end:
        if end.code != 2:
            sys.stderr.write(said.getvalue())
            if end.code:
                raise
            return lambda: None  # `--help` was printed
    found = sentence(said.getvalue(), name, words, options)
    raise ValueError(found if "did you mean" in found else f"{found}; `vicinal {name} --help` lists the options")


def _check_given(words: list[str], lists: set[str]) -> None:
    """Raises ValueError if an option is given twice, of which the parser takes the last, or with an empty value."""
    seen = set()
    for word, after in itertools.zip_longest(words, words[1:], fillvalue="--"):
        if not word.startswith("--"):
            continue
        option, equals, value = word.partition("=")
        option = _option(option)
        if option in seen:
            advice = "give all its values behind one" if option in lists else "leave one out"
            raise ValueError(f"expected {option} once, got it twice; {advice}")
        seen.add(option)
        if (equals and not value) or after == "" or (option in lists and not equals and after.startswith("--")):
            raise ValueError(f"expected a value for {option}, got none")


def options_of(function: Callable[..., None]) -> dict[str, bool]:
    """List the options of a command: option -> whether it takes several words, which commas may separate."""
    found: dict[str, bool] = {}
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        if name != "return" and tyro.conf.Positional not in getattr(hint, "__metadata__", ()):
            _walk(name, hint, found)
    return found


def _walk(name: str, hint: Any, found: dict[str, bool]) -> None:
    hidden = typing.get_origin(hint) is Annotated and any(getattr(m, "name", None) == "" for m in hint.__metadata__)
    kind = hint.__origin__ if typing.get_origin(hint) is Annotated else hint
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            _walk(field.name if hidden else f"{name}.{field.name}", hints[field.name], found)
        return
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    option = _option(f"--{name}")
    found[option] = any(typing.get_origin(part) in (tuple, list) for part in parts) and option not in _WHOLE
    if kind is bool:
        head, _, last = option[2:].rpartition(".")
        found[f"--{head}{'.' * bool(head)}no-{last}"] = False


def _option(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


def spread(words: list[str], lists: set[str]) -> list[str]:
    """Split the values of some options at their commas.

    Example:
        >>> spread(["--rules", "bp,il", "--learning-rates=0.1,1", "--data", "a,b"], {"--rules", "--learning-rates"})
        ['--rules', 'bp', 'il', '--learning-rates', '0.1', '1', '--data', 'a,b']
    """
    found, inside = [], False
    for word in words:
        if word.startswith("--"):
            inside = _option(word) in lists
            option, equals, value = word.partition("=")
            found += [option, *_pieces(value)] if inside and equals else [word]
        else:
            found += _pieces(word) if inside else [word]
    return found


def _pieces(word: str) -> list[str]:
    return [piece for piece in word.replace(",", " ").split() if piece] if "," in word else [word]


def _unknown(word: str, name: str, options: dict[str, bool]) -> str:
    option = _option(word)
    plain = option.lstrip("-")
    habit = f"--{_HABITS.get(plain, plain)}"
    inner = [known for known in options if known.endswith(f".{plain}")]  # `--sizes` for `--model.sizes`
    if habit in options:
        hint = f"; did you mean {habit!r}?"
    else:
        hint = f"; did you mean {inner[0]!r}?" if inner else did_you_mean(option, options)
    hint = hint or f"; `vicinal {name} --help` lists them"
    return f"expected an option of `vicinal {name}`, got {option}{hint}"


def sentence(box: str, name: str, words: list[str], options: dict[str, bool]) -> str:
    """Turn the parser's boxed message into one sentence: expected, got.

    Args:
        box: The message, with the lines of its box.
        name: The command.
        words: The parsed words.
        options: As `options_of` gives them.
    """
    parts = [part for part in re.split(r".*[─-]{5,}.*", box) if part.strip()]  # message, help, more help
    if "│" not in box:  # without these lines the title is a part too
        parts = parts[1:]
    said = " ".join((parts or [box])[0].replace("│", " ").split())
    if found := re.search(r"Unrecognized options: (\S+)", said):
        return _too_many(found[1].rstrip(","), name, words, options)
    if found := re.search(r"[Ii]nvalid choice '(.*?)' for argument '(--\S+)'. Expected one of \((.*)\)", said):
        known = sorted(word.strip(" '") for word in found[3].split(",") if word.strip(" '") not in ("None", ""))
        hint = did_you_mean(found[1], known)
        return f"expected {found[2]} as one of {', '.join(known)}, got {found[1]!r}{hint}"
    if found := re.search(
        r"parsing (--[^\s:]+).* input length (\d+) did not match expected argument count (\d+)", said
    ):
        return f"expected {found[3]} values of {found[1]}, got {found[2]}"
    if found := re.search(r"parsing (--\S+?):? .*?(int|float).*?: ?'?([^']*)'?$", said):
        kind = {"int": "a whole number", "float": "a number"}[found[2]]
        return f"expected {kind} for {found[1]}, got {found[3]!r}"
    if found := re.search(r"parsing (--\S+?):? Could not find valid parse for arguments: \[(.*)\]", said):
        return f"expected numbers for {found[1]}, got {found[2]}"
    if found := re.search(r"Missing value for argument '(\S+)'", said):
        return f"expected a value for {found[1]}, got none"
    if said.startswith("Missing from"):
        return f"expected a name after `vicinal {name}`, got none"
    return said[:1].lower() + said[1:].rstrip(".")


def _too_many(word: str, name: str, words: list[str], options: dict[str, bool]) -> str:
    """Word the error of an extra word: behind an option that takes one value, or behind none."""
    at = words.index(word) if word in words else 0
    before = [option for option in words[:at] if option.startswith("--")]
    if before and options.get(_option(before[-1])) is False:
        return f"expected one value of {_option(before[-1])}, got {word!r} too"
    if at and not before:
        return f"expected one name after `vicinal {name}`, got {word!r} too"
    return f"expected only options, which begin with --, after `vicinal {name}`, got {word!r}"
