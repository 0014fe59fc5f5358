"""Tables of results, for a terminal and as Markdown. Knows no records."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text


class Sheet(NamedTuple):
    """A table; all columns but the first `names` hold figures."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    names: int = 1

    def only(self, heads: Collection[str]) -> "Sheet":
        """The table without other columns."""
        kept = [place for place, head in enumerate(self.heads) if head in heads]
        names = sum(place < self.names for place in kept)
        return Sheet([self.heads[i] for i in kept], [[line[i] for i in kept] for line in self.lines], names)

    def rich(self, title: str) -> Table:
        table = Table(title=Text(title), title_justify="left")
        for place, head in enumerate(self.heads):
            table.add_column(Text(head), justify="left" if place < self.names else "right")
        for line in self.lines:
            table.add_row(*map(Text, line))
        return table

    def markdown(self) -> list[str]:
        rule = ["---"] * self.names + ["---:"] * (len(self.heads) - self.names)
        return [f"| {' | '.join(map(_cell, line))} |" for line in (self.heads, rule, *self.lines)]


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def band(low: float, high: float) -> str:
    """An interval of a share, in percent."""
    return f"{percent(low)} to {percent(high)}"


def count(value: float | None) -> str:
    """A mean of something countable; empty where it is not told."""
    return "" if value is None else f"{value:,.0f}"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
