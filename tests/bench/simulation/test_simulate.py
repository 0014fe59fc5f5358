"""A small simulation from end to end, and that the known facts are judged by the figures alone."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer

import strategies
from bench.simulation import simulate
from bench.simulation.known_facts import known_facts
from bench.simulation.simulate import CellJob, contestants, main, table
from bench.stats.intervals import Cell, difference, wilson

LABELS = ("single", "majority", "weighted", "best_of_n", "beam_search")


def cell(label: str, hits: int, *, budget: int = 8, quality: float = 0.2, difficulty: str = "easy") -> Cell:
    return Cell(label, difficulty, quality, budget, tuple(i < hits for i in range(100)), 10.0 * budget, 1.0)


@pytest.mark.parametrize("label", contestants())
def test_every_contestant_fills_a_cell(label: str) -> None:
    contestant = contestants()[label]
    for budget in (1, 8):
        filled = CellJob(label, "easy", 0.4 if contestant.scored else None, budget, 4).run()
        assert len(filled.hits) == 4
        assert filled.completion_tokens > 20
        assert filled.prm_tokens > 0 or not contestant.scored or label == "confidence"


def test_every_registered_strategy_takes_part_or_is_named_as_absent() -> None:
    taking_part = {contestant.strategy for contestant in contestants().values()}
    assert taking_part | {*simulate.absent()} == {*strategies.registry()}
    assert {"single", "self_consistency", "best_of_n", "beam_search"} <= taking_part


def test_a_simulation_has_every_cell_once_and_repeats() -> None:
    cells = simulate.simulate((0.0, 1.0), (1, 4), questions=3, labels=LABELS)
    keys = [(c.label, c.difficulty, c.quality, c.budget) for c in cells]
    assert len(keys) == len(set(keys)) == 3 * 2 * (2 * len(LABELS) - 1)
    assert cells == simulate.simulate((0.0, 1.0), (1, 4), questions=3, labels=LABELS)
    votes = {c.quality: c for c in cells if (c.label, c.difficulty, c.budget) == ("majority", "easy", 4)}
    assert votes[0.0].hits == votes[1.0].hits
    assert votes[0.0].prm_tokens == 0
    tokens = {c.budget: c.completion_tokens for c in cells if (c.label, c.difficulty) == ("best_of_n", "easy")}
    assert tokens[4] == pytest.approx(4 * tokens[1], rel=0.2)


def test_processes_fill_the_same_cells() -> None:
    few = {"qualities": (0.2,), "budgets": (2,), "questions": 2, "labels": ("best_of_n",)}
    assert simulate.simulate(**few, processes=2) == simulate.simulate(**few)


def test_an_unknown_contestant_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="or a strategy; got 'nobody'"):
        simulate.named(["nobody"])


def test_it_writes_picture_table_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra bench")
    main(tmp_path / "out", questions=3, top=4, only=list(LABELS), processes=1)
    written = tmp_path / "out"
    assert (written / "simulate.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((written / "simulate.json").read_text())
    with (written / "simulate.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(data["cells"]) == 3 * 4 * (3 * (len(LABELS) - 1) + 1)
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in data["cells"])
    text = (written / "simulate.md").read_text()
    facts = capsys.readouterr().out.splitlines()
    assert len(facts) == len(data["facts"]) == 3
    assert all(fact in text for fact in facts)


def test_the_table_has_a_row_a_contestant_with_intervals() -> None:
    head, line, *rows = table([cell("majority", 90), cell("majority", 50, budget=1), cell("best_of_n", 0)])
    assert head.count("|") == line.count("|")
    assert len(rows) == 2
    assert rows[0].startswith("| easy | 0.2 | majority | 50.0 (40.4 to 59.6) | 10 | 90.0 (82.6 to 94.5) | 80 |")
    assert "| 0.0 (0.0 to 3.7) |" in rows[1]


def judged(*cells: Cell) -> dict[str, bool]:
    return {fact.claim.partition(" ")[0]: fact.holds for fact in known_facts(cells)}


@pytest.mark.parametrize(("weighted", "holds"), [(80, True), (55, False), (50, False), (20, False)])
def test_weighted_beats_best_only_if_it_does(weighted: int, holds: bool) -> None:
    # 5 questions of 100 that differ are within chance.
    assert judged(cell("weighted", weighted), cell("best_of_n", 50)) == {"A": holds}


@pytest.mark.parametrize(
    ("early", "late", "vote", "holds"),
    [(90, 60, 95, True), (60, 60, 95, False), (60, 90, 95, False), (90, 60, 60, False)],
)
def test_beam_over_optimises_only_if_it_falls_and_is_behind(early: int, late: int, vote: int, holds: bool) -> None:
    found = judged(
        cell("beam_search", early, budget=4), cell("beam_search", late, budget=64), cell("weighted", vote, budget=64)
    )
    assert found == {"Beam": holds}


@pytest.mark.parametrize(
    ("early", "late", "holds"), [((50, 60), (90, 60), True), ((80, 60), (90, 60), False), ((50, 60), (60, 60), False)]
)
def test_dvts_overtakes_only_from_not_being_ahead(early: tuple[int, int], late: tuple[int, int], holds: bool) -> None:
    cells = [
        cell(label, hits, budget=budget)
        for budget, pair in ((8, early), (64, late))
        for label, hits in zip(("dvts", "beam_search"), pair, strict=True)
    ]
    assert judged(*cells) == {"DVTS": holds}


@pytest.mark.parametrize(("rival", "holds"), [(50, True), (55, True), (90, False)])
def test_nothing_beats_the_majority_unless_something_does(rival: int, holds: bool) -> None:
    def useless(label: str, hits: int) -> Cell:
        return cell(label, hits, quality=0.0)

    assert judged(useless("majority", 50), useless("dvts", rival), useless("rebase", 40)) == {"Nothing": holds}


def test_the_majority_has_as_many_tokens_as_its_rival() -> None:
    def spending(label: str, hits: int, budget: int, tokens: float) -> Cell:
        return replace(cell(label, hits, quality=0.0, budget=budget), completion_tokens=tokens)

    votes = [spending("majority", 50, 2, 100.0), spending("majority", 90, 16, 800.0)]
    assert judged(*votes, spending("mcts", 90, 2, 790.0)) == {"Nothing": True}
    assert judged(*votes, spending("mcts", 90, 2, 100.0)) == {"Nothing": False}


def test_wilson_is_the_score_interval() -> None:
    low, high = wilson(8, 10)
    # Both ends are where the score test just fails: (p - 0.8)^2 = z^2 p (1 - p) / n.
    for end in (low, high):
        assert (end - 0.8) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 10, rel=1e-5)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def test_a_difference_counts_each_question_once() -> None:
    one, other = cell("a", 60), cell("b", 50)
    alone = difference([one], [other])
    assert alone.mean == pytest.approx(0.1)
    assert alone.low < 0.1 < alone.high
    assert difference([one, one], [other, other]) == alone
    assert str(difference([one], [one])) == "+0.0 (+0.0 to +0.0)"
