"""Tables of results, for a terminal and as Markdown. Knows no records."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FRAME = 3
"""Characters that a column takes beside its cells."""


class Sheet(NamedTuple):
    """A table; all columns but the first `names` hold figures."""

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    names: int = 1
    marked: Collection[int] = ()
    """Rows that a reader is to look at first."""

    def only(self, heads: Collection[str]) -> "Sheet":
        """The table without other columns."""
        return self._columns([place for place, head in enumerate(self.heads) if head in heads])

    def fitting(self, width: int) -> "Iterator[Sheet]":
        """The table in parts of at most so many characters, each with the names: a cell is shown whole."""
        names = list(range(self.names))
        used = 1 + sum(map(self._width, names))
        part, size = list(names), used
        for place in range(self.names, len(self.heads)):
            if size + self._width(place) > width and len(part) > len(names):
                yield self._columns(part)
                part, size = list(names), used
            part.append(place)
            size += self._width(place)
        yield self._columns(part)

    def rich(self, title: str) -> Table:
        table = Table(title=Text(title), title_justify="left")
        for place, head in enumerate(self.heads):
            justify: Literal["left", "right"] = "left" if place < self.names else "right"
            table.add_column(Text(head), justify=justify, overflow="fold", min_width=self._width(place) - _FRAME)
        for row, line in enumerate(self.lines):
            table.add_row(*map(Text, line), style="bold" if row in self.marked else None)
        return table

    def markdown(self) -> list[str]:
        rule = ["---"] * self.names + ["---:"] * (len(self.heads) - self.names)
        lines = [
            [f"**{_cell(cell)}**" if row in self.marked and cell else _cell(cell) for cell in line]
            for row, line in enumerate(self.lines)
        ]
        return [f"| {' | '.join(line)} |" for line in ([*map(_cell, self.heads)], rule, *lines)]

    def _columns(self, kept: Sequence[int]) -> "Sheet":
        names = sum(place < self.names for place in kept)
        lines = [[line[i] for i in kept] for line in self.lines]
        return Sheet([self.heads[i] for i in kept], lines, names, self.marked)

    def _width(self, place: int) -> int:
        """Of a column whose head may be broken between words."""
        words = self.heads[place].split()
        return _FRAME + max((cell_len(text) for text in (*words, *(line[place] for line in self.lines))), default=0)


def show(console: Console, title: str, sheet: Sheet) -> None:
    """Prints a table, in several parts where it is wider than the terminal."""
    for part in sheet.fitting(console.width):
        console.print(part.rich(title))


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
