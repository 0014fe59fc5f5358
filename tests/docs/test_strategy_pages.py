"""The pages of the strategies: whole, true to the code, and up to date."""

import re
from pathlib import Path

import pytest
from strategy_guides import GUIDES
from strategy_pages import INDEX, PAGES, entries, index, page, stale, write

NAMES = sorted(entries())


def test_each_strategy_has_a_guide_and_each_guide_a_strategy() -> None:
    assert sorted(GUIDES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_options_of_a_guide_are_the_strategys(name: str) -> None:
    options = entries()[name].options
    options.model_validate(GUIDES[name].example)
    options.model_validate({**GUIDES[name].example, **GUIDES[name].toy})


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_up_to_date(name: str) -> None:
    if name == "ab_mcts":
        pytest.importorskip("treequest")
    assert (PAGES / f"{name}.md").read_text() == page(entries()[name]), "run `python docs/tools/strategy_pages.py`"


def test_the_index_is_up_to_date_and_there_is_no_page_too_many() -> None:
    assert (PAGES / INDEX).read_text() == index()
    assert sorted(file.name for file in PAGES.iterdir()) == sorted([INDEX, *(f"{name}.md" for name in NAMES)])


def test_a_page_lists_every_option_with_its_bounds() -> None:
    text = page(entries()["beam_search"])
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert listed == [*entries()["beam_search"].options.model_fields, "question", "answer"]
    assert "| `beam_width` | integer | `4` | at least 1, at most 4096 | Continuations of each kept beam. |" in text
    assert r'| `separator` | string | `"\n\n"` |' in text
    assert "- Reward model: needed.\n- Engine: token-id continuation." in text
    assert "[arXiv:2408.03314](https://arxiv.org/abs/2408.03314)" in text


def test_every_table_has_as_many_cells_as_its_head() -> None:
    for file in PAGES.iterdir():
        for table in re.findall(r"(?:^\|.*\n)+", file.read_text(), re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, file.name


def test_what_is_changed_missing_or_left_over_is_stale(tmp_path: Path) -> None:
    pytest.importorskip("treequest")
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "single.md").write_text("old")
    (tmp_path / "dvts.md").unlink()
    (tmp_path / "gone.md").write_text("of a strategy that is no more")
    assert stale(tmp_path) == ["dvts.md", "gone.md", "single.md"]
    write(tmp_path)
    assert stale(tmp_path) == []
