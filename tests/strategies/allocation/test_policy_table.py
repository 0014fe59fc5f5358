"""Reading and writing policies: what is wrong is named, what is right comes back as it was."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from strategies.allocation.difficulty import Difficulty, Isotonic
from strategies.allocation.policy_table import (
    Cell,
    InUse,
    Pilot,
    Policy,
    PolicyError,
    Seconds,
    Tokens,
    choose,
    complete_options,
    parse,
    read,
    write,
)
from strategies.core.prompts import BOXED


def cell(place: int, strategy: str, low: float, tokens: float, **options: Any) -> Cell:
    cost = Tokens(tokens, tokens, tokens)
    return Cell(place, strategy, options, low + 0.05, low, low + 0.1, 50, cost, Tokens(0, 0, 0), Seconds(1.0, 2.0))


POLICY = Policy(
    model="m",
    prm="p",
    prompt="",
    created="2026-11-21T10:00:00+00:00",
    source="runs",
    pilot=Pilot(4),
    difficulty=Difficulty(("share",), (0.5,), (0.25,), (1.0,), 0.0, Isotonic((0.0, 1.0), (0.1, 0.9)), 0.03, 80),
    edges=(0.1, 0.5),
    agreed=0.9,
    cells=(cell(0, "stop", 0.0, 100.0), cell(2, "self_consistency", 0.8, 400.0, n=16)),
)
WHOLE: dict[str, Any] = json.loads(json.dumps(asdict(POLICY)))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write(POLICY, tmp_path / "policy.json")
    assert read(tmp_path / "policy.json") == POLICY
    assert read(tmp_path / "policy.json").difficulty == POLICY.difficulty


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="edges: they rise"):
        write(replace(POLICY, edges=(0.5, 0.1)), tmp_path / "policy.json")
    assert not (tmp_path / "policy.json").exists()


def with_cell(**changed: Any) -> dict[str, Any]:
    return {"cells": [{**WHOLE["cells"][1], **changed}]}


def with_difficulty(**changed: Any) -> dict[str, Any]:
    return {"difficulty": {**WHOLE["difficulty"], **changed}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, r"version: Input should be 1"),
        ({"model": ""}, r"model: String should have at least 1"),
        ({"created": "yesterday"}, r"created: an ISO 8601 time, got 'yesterday'"),
        ({"pilot": {"n": 0}}, r"pilot\.n: "),
        ({"edges": [0.1, "x"]}, r"edges\.1: Input should be a valid number"),
        ({"edges": [0.5, 0.1]}, r"edges: they rise, got \[0\.5, 0\.1\]"),
        ({"edges": [0.1, 1.0]}, r"edges\.1: Input should be less than 1"),
        ({"cells": []}, r"cells: Tuple should have at least 1 item"),
        (with_cell(bin=3), r"cells\.0\.bin: at most 2 with 2 edges, got 3"),
        (with_cell(low=0.99), r"cells\.0\.accuracy: between low and high"),
        (with_cell(accuracy=1.5), r"cells\.0\.accuracy: Input should be less than or equal to 1"),
        (with_cell(tokens={"p50": 1.0, "p95": 2.0}), r"cells\.0\.tokens\.mean: "),
        (with_cell(tokens={"p50": 3.0, "p95": 2.0, "mean": 1.0}), r"cells\.0\.tokens\.p95: at least p50"),
        (with_cell(strategy="guess"), r"cells\.0\.strategy: unknown arm 'guess'; known: stop, ab_mcts"),
        (with_cell(strategy="compute_optimal"), r"cells\.0\.strategy: unknown arm 'compute_optimal'"),
        (with_cell(options={"n": 0}), r"cells\.0\.options\.n: "),
        (with_cell(options={"m": 1}), r"cells\.0\.options\.m: "),
        (with_cell(options={"system_prompt": "boxed"}), r"cells\.0\.options\.system_prompt: it is the request's"),
        (with_cell(strategy="stop"), r"cells\.0\.options: 'stop' has none"),
        (with_difficulty(features=["luck"]), r"difficulty\.features: unknown feature 'luck'; known: share, clusters"),
        (with_difficulty(mean=[0.1, 0.2]), r"difficulty\.mean: one for each of 1 features"),
        (with_difficulty(scale=[0.0]), r"difficulty\.scale\.0: Input should be greater than 0"),
        (with_difficulty(isotonic={"x": [0.0, 1.0], "y": [0.5]}), r"difficulty\.isotonic\.y: one for each of 2 x"),
        (with_difficulty(isotonic={"x": [0.0, 1.0], "y": [0.5, 0.4]}), r"difficulty\.isotonic: neither x nor y may"),
        (with_difficulty(intercept=float("nan")), r"difficulty\.intercept: "),
        ({"colour": "red"}, r"colour: There is no such key"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=rf"\A{said}"):
        parse(json.dumps({**WHOLE, **changed}))


@pytest.mark.parametrize("field", [name for name in WHOLE if name != "version"])
def test_nothing_may_be_missing(field: str) -> None:
    with pytest.raises(PolicyError, match=rf"\A{field}: "):
        parse(json.dumps({name: value for name, value in WHOLE.items() if name != field}))


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(PolicyError, match=r"half\.json: Invalid JSON"):
        read(tmp_path / "half.json")


def test_a_policy_can_do_without_a_model_of_difficulty() -> None:
    assert parse(json.dumps({**WHOLE, "difficulty": None})).difficulty is None


@pytest.mark.parametrize(("p", "place"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.4999, 1), (0.5, 2), (1.0, 2)])
def test_an_edge_belongs_to_the_easier_bin(p: float, place: int) -> None:
    assert POLICY.bin_of(p) == place


def test_an_empty_bin_takes_the_cells_of_the_nearest_and_the_harder_of_two() -> None:
    assert [c.strategy for c in POLICY.cells_of(2)] == ["self_consistency"]
    assert [c.strategy for c in POLICY.cells_of(1)] == ["stop"]


def test_it_holds_for_its_model_reward_model_and_prompt_only() -> None:
    assert POLICY.mismatch("m", "p", " ") is None
    assert "fitted for the model 'm', not 'other'" in (POLICY.mismatch("other", "p", "") or "")
    assert "with the reward model 'p', not 'q'" in (POLICY.mismatch("m", "q", "") or "")
    assert "not 'none'" in (POLICY.mismatch("m", None, "") or "")
    assert "with the system prompt ''" in (POLICY.mismatch("m", "p", "Be brief.") or "")
    boxed = replace(POLICY, prompt="boxed", prm=None)
    assert boxed.mismatch("m", "any", BOXED) is None
    assert boxed.mismatch("m", None, "") is not None


def test_a_forced_one_holds_for_all() -> None:
    assert InUse(POLICY).mismatch("other", None, "x") == POLICY.mismatch("other", None, "x")
    assert InUse(POLICY, forced=True).mismatch("other", None, "x") is None


CELLS = [cell(1, "stop", 0.3, 100), cell(1, "best_of_n", 0.6, 900), cell(1, "self_consistency", 0.5, 400)]


@pytest.mark.parametrize(
    ("target", "strategy"),
    [(None, "best_of_n"), (0.2, "stop"), (0.45, "self_consistency"), (0.6, "best_of_n"), (0.9, "best_of_n")],
)
def test_the_surest_is_chosen_or_the_cheapest_that_is_sure_enough(target: float | None, strategy: str) -> None:
    chosen = choose(CELLS, target)
    assert chosen is not None
    assert chosen.strategy == strategy


def test_of_equals_the_cheaper_is_chosen() -> None:
    dear, cheap = cell(1, "stop", 0.3, 100), cell(1, "best_of_n", 0.3, 90)
    assert choose([dear, cheap]) == cheap
    assert choose([]) is None


def test_a_cell_s_options_are_typed_and_complete() -> None:
    options = complete_options(cell(0, "best_of_n", 0.1, 10, n=3))
    assert options["n"] == 3
    assert (options["selector"], options["aggregation"]) == (None, None)
