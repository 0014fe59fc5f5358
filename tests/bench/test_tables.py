"""Tables print and escape what they are given."""

from io import StringIO

from rich.console import Console

from bench.tables import Sheet, count, p_value

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
