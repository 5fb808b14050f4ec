"""Suggestions for mistyped names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Returns `"; did you mean 'x'?"` for the most similar known name, or `""` if none is similar.

    Args:
        name: The mistyped name.
        known: The existing names.
        cutoff: How similar they must be, from 0 to 1.

    Example:
        >>> did_you_mean("trian", ["train", "sweep"])
        "; did you mean 'train'?"
        >>> did_you_mean("paint", ["train", "sweep"], cutoff=0.9)
        ''
    """
    spelled = {option.lower(): option for option in known}
    found = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=cutoff)
    return f"; did you mean {spelled[found[0]]!r}?" if found else ""
