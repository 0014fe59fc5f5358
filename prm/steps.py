"""Splits text into steps: one rule for every reward model and every strategy."""

import re

SEPARATOR = "\n\n"
SEPARATORS = (SEPARATOR, "\n\r\n")
"""How a blank line begins in streamed text, for both kinds of line ends."""

_BLANK_LINES = re.compile(r"\n\s*\n")


def split_steps(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Returns the steps of a solution: the non-blank parts between separators, stripped.

    The default separator is a blank line, with either kind of line end and with or without spaces in it. A trailing
    separator makes no empty last step, and blank text has no steps.
    """
    parts = _BLANK_LINES.split(text) if separator == SEPARATOR else text.split(separator)
    return tuple(part.strip() for part in parts if part.strip())
