"""What somebody may have meant who mistyped a name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """`"; did you mean 'x'?"` for the known name that is most like this one, or nothing if none is like it.

    Args:
        name: As it was given.
        known: The names that there are.
        cutoff: How alike they must be, from 0 to 1.

    Example:
        >>> did_you_mean("trian", ["train", "sweep"])
        "; did you mean 'train'?"
        >>> did_you_mean("paint", ["train", "sweep"], cutoff=0.9)
        ''
    """
    spelled = {option.lower(): option for option in known}
    found = difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=cutoff)
    return f"; did you mean {spelled[found[0]]!r}?" if found else ""
