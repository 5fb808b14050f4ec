"""From the words of a command to the call of its function; what does not fit is said in one sentence."""

import contextlib
import dataclasses
import functools
import io
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
"""What other programs call an option."""


def parse(function: Callable[..., None], name: str, words: list[str]) -> Callable[[], None]:
    """The call that the words ask for.

    Args:
        function: Of the command; its parameters are the options.
        name: Of the command, as it is typed.
        words: What follows the name.

    Raises:
        ValueError: If the words do not fit the function.
        SystemExit: After `--help` was printed.
    """
    options = options_of(function)
    words = spread(words, {option for option, is_list in options.items() if is_list})
    for word in words:
        if re.match(r"--?[A-Za-z]", word) and _option(word) not in {*options, "--help", "-h"}:
            raise ValueError(_unknown(word, name, options))

    @functools.wraps(function)
    def later(*positional: Any, **keywords: Any) -> Any:  # the parser calls it; what runs may then print as it likes
        return functools.partial(function, *positional, **keywords)

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(later, prog=f"vicinal {name}", args=words)
    except SystemExit as end:
        if not end.code:
            sys.stderr.write(said.getvalue())
            raise
    found = sentence(said.getvalue(), name, words, options)
    raise ValueError(found if "did you mean" in found else f"{found}; `vicinal {name} --help` lists the options")


def options_of(function: Callable[..., None]) -> dict[str, bool]:
    """The options of a command: for each whether it takes a list of words that commas may separate, too."""
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
    """The words with the commas in the values of some options made blanks.

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
    """What the parser said in a box, as one sentence: expected, got.

    Args:
        box: Its text, with the lines of the box.
        name: The command.
        words: What was parsed.
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
    """The sentence for a word too many: after an option that takes one, or after none."""
    at = words.index(word) if word in words else 0
    before = [option for option in words[:at] if option.startswith("--")]
    if before and options.get(_option(before[-1])) is False:
        return f"expected one value of {_option(before[-1])}, got {word!r} too"
    return f"expected options like --seeds 3 after `vicinal {name}`, got {word!r}"
