"""Tables print and escape what they are given."""

from io import StringIO

import pytest
from rich.console import Console

from bench.stats.tables import Sheet, count, p_value, show, terminal

SHEET = Sheet(("name", "kind", "%"), [["a|b <i>", "[bold]x[/bold]\ny", "12.5"]], names=2)


def test_markdown_cells_cannot_break_the_table() -> None:
    assert SHEET.markdown() == [
        "| name | kind | % |",
        "| --- | --- | ---: |",
        "| a\\|b &lt;i> | [bold]x[/bold] y | 12.5 |",
    ]


def test_a_terminal_shows_markup_as_text() -> None:
    file = StringIO()
    Console(width=80, file=file).print(SHEET.rich("[red]title"))
    printed = file.getvalue()
    assert "[red]title" in printed
    assert "[bold]x[/bold]" in printed


def test_columns_can_be_left_out() -> None:
    assert SHEET.only(("name", "%")) == Sheet(["name", "%"], [["a|b <i>", "12.5"]], names=1)


def test_figures_that_are_not_told_are_empty() -> None:
    assert [count(None), count(1234.4), p_value(0.0004), p_value(0.25)] == ["", "1,234", "< 0.001", "0.250"]


def test_a_narrow_terminal_shows_every_cell_whole() -> None:
    names = ["self_consistency@16 beta", "best_of_n@16 weighted"]
    heads = ("arm alone", *(f"figure {i}, %" for i in range(9)))
    sheet = Sheet(heads, [[name, *(f"{i}{i}{i},000.{row}" for i in range(9))] for row, name in enumerate(names)])
    file = StringIO()
    show(Console(width=60, file=file), "Arms", sheet)
    printed = file.getvalue()
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 60
    assert all(cell in printed for line in sheet.lines for cell in line)
    assert all(printed.count(name) == printed.count("Arms") > 1 for name in names)


@pytest.mark.parametrize("width", [60, 70, 80, 90, 120])
def test_every_line_of_every_part_fits_whatever_is_broken_in_its_heads(width: int) -> None:
    heads = ("estimate", "first, %", "second, %", "difference (95 %)", "only one right", "McNemar's p")
    sheet = Sheet(heads, [["weighted@16 (mean)", "8.3", "4.2", "+4.2 (-12.5 to +25.0)", "11 : 10", "< 0.001"]])
    file = StringIO()
    show(Console(width=width, file=file), "Two runs", sheet)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert all(cell in file.getvalue() for cell in sheet.lines[0])
    words = [word for head in heads for word in head.split()]
    assert all(any(word in line for line in lines) for word in words)


def test_a_pipe_bounds_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = Sheet([f"figure {i}" for i in range(40)], [[f"{i:,}.000" for i in range(40)]])
    monkeypatch.delenv("COLUMNS", raising=False)
    show(terminal(), "Arms", sheet)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[-1].split() == " │ ".join(sheet.lines[0]).split()
    monkeypatch.setenv("COLUMNS", "80")
    show(terminal(), "Arms", sheet)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_rows_that_matter_are_marked() -> None:
    sheet = Sheet(("name", "%", "p"), [["a", "1", ""], ["b", "2", "0.1"]], marked=(0,))
    assert sheet.markdown()[2:] == ["| **a** | **1** |  |", "| b | 2 | 0.1 |"]
    assert sheet.only(("name", "%")).marked == (0,)
