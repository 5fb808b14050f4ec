"""Numbers with nouns."""


def counted(number: int, noun: str) -> str:
    """Writes a number with its noun, in the plural if needed.

    Args:
        number: How many.
        noun: The singular; an `s` makes the plural.

    Returns:
        The number and the noun.

    Example:
        >>> counted(1, "seed"), counted(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number} {noun}{'s' * (number != 1)}"
