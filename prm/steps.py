"""Text to steps: one rule for every PRM and every strategy."""

import re

SEPARATOR = "\n\n"
SEPARATORS = (SEPARATOR, "\n\r\n")
"""A blank line as a text that grows shows it first, by the line ends of either kind."""

_BLANK_LINES = re.compile(r"\n\s*\n")


def split_steps(text: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """The steps of a solution: the non-blank parts between separators, stripped.

    The default separator is a blank line: whatever ends the lines, and also where there are spaces in it. A trailing
    separator makes no empty last step; blank text has no steps.
    """
    parts = _BLANK_LINES.split(text) if separator == SEPARATOR else text.split(separator)
    return tuple(part.strip() for part in parts if part.strip())
