"""Text to steps: one rule for every PRM and every strategy."""

SEPARATOR = "\n\n"


def split_steps(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """The steps of a solution: the non-blank parts between separators, stripped.

    A trailing separator makes no empty last step; blank text has no steps.
    """
    return tuple(part.strip() for part in text.split(separator) if part.strip())
