"""Tables of results, for a terminal and as Markdown. Knows no records."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_BETWEEN = 3
"""Characters between two columns."""
_UNBOUNDED = 100_000
"""Characters of a line where nothing bounds it."""


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
        part = list(names)
        for place in range(self.names, len(self.heads)):
            if len(part) > len(names) and _line(map(self._least, [*part, place])) > width:
                yield self._columns(part)
                part = list(names)
            part.append(place)
        yield self._columns(part)

    def rich(self, title: str, width: int = _UNBOUNDED) -> Table:
        """The table for a terminal of so many characters: heads break between words where it would be wider."""
        table = Table(title=Text(title), title_justify="left", show_edge=False, pad_edge=False)
        for place, (head, own) in enumerate(zip(self.heads, self._widths(width), strict=True)):
            justify: Literal["left", "right"] = "left" if place < self.names else "right"
            table.add_column(Text(head), justify=justify, overflow="fold", width=own)
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

    def _widths(self, width: int) -> list[int]:
        """Of the columns: as much of their heads in one line as there is room for."""
        widths = [self._least(place) for place in range(len(self.heads))]
        room = width - _line(widths)
        for place, head in enumerate(self.heads):
            more = min(max(0, cell_len(head) - widths[place]), max(0, room))
            widths[place] += more
            room -= more
        return widths

    def _least(self, place: int) -> int:
        """The width of a column whose head is broken between words, and no cell is."""
        cells = [part for line in self.lines for part in line[place].splitlines()]
        return max(map(cell_len, [*self.heads[place].split(), *cells]), default=0)


def _line(widths: Iterable[int]) -> int:
    """Characters of a line with such columns."""
    return sum(width + _BETWEEN for width in widths) - _BETWEEN


def terminal() -> Console:
    """Standard output; nothing bounds its lines where it is a pipe or a file, unless COLUMNS does."""
    console = Console()
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(width=_UNBOUNDED)


def show(console: Console, title: str, sheet: Sheet) -> None:
    """Prints a table, in several parts where it is wider than the terminal."""
    for part in sheet.fitting(console.width):
        console.print(part.rich(title, console.width), soft_wrap=True)


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
