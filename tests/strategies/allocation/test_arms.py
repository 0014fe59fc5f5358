"""Which arms can answer a task at all, and which of them fit what is left."""

from dataclasses import replace
from typing import Any

import pytest
from searching import TASK

from prm import FakePRM
from strategies.allocation.arms import Arms, Drawn, missing
from strategies.allocation.policy_table import Cell, Seconds, Tokens
from strategies.core.account import Account, Budget, Usage
from strategies.core.contracts import Prompt, Sampling, Task
from tts_server.engines.fake import FakeEngine

DRAWN = Drawn(pilot=4, pilot_tokens=40, pilot_prm_tokens=20, pilot_wall_s=1.0, samples=4, tokens=40)


def cell(strategy: str, tokens: float = 100, prm: float = 0, wall_s: float = 2.0, **options: Any) -> Cell:
    cost, scored = Tokens(tokens, tokens, tokens), Tokens(prm, prm, prm)
    return Cell(0, strategy, options, 0.5, 0.5, 0.5, 9, cost, scored, Seconds(wall_s, wall_s))


def arms(
    task: Task = TASK,
    budget: Budget | None = None,
    *,
    prm: bool = True,
    continues: bool = True,
    stop_wall_s: float | None = 1.0,
) -> Arms:
    account = Account(budget or Budget(), Usage(completion_tokens=40, prm_tokens=20, samples=4))
    return Arms(task, FakeEngine(continues=continues), FakePRM() if prm else None, account, stop_wall_s)


def with_sampling(**fields: Any) -> Task:
    return replace(TASK, sampling=Sampling(**fields))


TOOLS = replace(TASK, prompt=replace(TASK.prompt, template={"tools": [{"type": "function"}]}))
TEXT = replace(TASK, prompt=Prompt(token_ids=(1, 2)))

ABLE: list[tuple[Arms, set[str]]] = [
    (arms(), {"self_consistency", "best_of_n", "beam_search", "self_refine", "budget_forcing"}),
    (arms(prm=False), {"self_consistency", "self_refine", "budget_forcing"}),
    (arms(continues=False), {"self_consistency", "best_of_n", "self_refine"}),
    (arms(with_sampling(structured={"type": "json_object"})), {"self_consistency", "best_of_n"}),
    (arms(TOOLS), {"self_consistency", "best_of_n"}),
    (arms(with_sampling(presence_penalty=0.5)), {"self_consistency", "best_of_n", "self_refine"}),
    (arms(with_sampling(min_tokens=5)), {"self_consistency", "best_of_n", "self_refine", "beam_search"}),
    (arms(TEXT), {"self_consistency", "best_of_n", "beam_search", "budget_forcing"}),
    (arms(replace(TASK, choices=3)), {"self_consistency", "best_of_n", "beam_search"}),
]


@pytest.mark.parametrize(("able", "names"), ABLE)
def test_only_what_can_answer_the_task_is_able(able: Arms, names: set[str]) -> None:
    for name in ("self_consistency", "best_of_n", "beam_search", "self_refine"):
        options = {} if name == "self_refine" else {"n": 4}
        assert able.able(cell(name, **options)) == (name in names), name


def test_a_plain_vote_needs_no_reward_model() -> None:
    assert arms(prm=False).able(cell("best_of_n", selector="majority"))
    assert not arms(prm=False).able(cell("self_consistency", selector="weighted"))


@pytest.mark.parametrize(
    ("budget", "given", "fits"),
    [
        (Budget(max_tokens=100), cell("self_consistency", n=8), True),
        (Budget(max_tokens=99), cell("self_consistency", n=8), False),
        # A vote that has all its samples costs nothing more.
        (Budget(max_tokens=40), cell("self_consistency", n=4), True),
        (Budget(max_tokens=99), cell("beam_search", n=4), False),
        (Budget(max_tokens=40), cell("stop"), True),
        (Budget(max_samples=8), cell("self_consistency", n=8), True),
        (Budget(max_samples=7), cell("self_consistency", n=8), False),
        (Budget(max_samples=8), cell("beam_search", n=4), True),
        (Budget(max_samples=7), cell("beam_search", n=4), False),
        (Budget(max_prm_tokens=60), cell("best_of_n", prm=60, n=8), True),
        (Budget(max_prm_tokens=59), cell("best_of_n", prm=60, n=8), False),
        (Budget(deadline_s=60), cell("self_consistency", wall_s=50, n=8), True),
        (Budget(deadline_s=40), cell("self_consistency", wall_s=50, n=8), False),
    ],
    ids=str,
)
def test_an_arm_fits_if_its_dearest_runs_do(budget: Budget, given: Cell, fits: bool) -> None:
    assert arms(budget=budget).fits(given, DRAWN) == fits


def test_a_pilot_that_took_twice_or_half_as_long_makes_the_rest_so_too() -> None:
    limited = arms(budget=Budget(deadline_s=60))
    assert limited.fits(cell("beam_search", wall_s=41), DRAWN)
    assert not limited.fits(cell("beam_search", wall_s=41), replace(DRAWN, pilot_wall_s=2.0))
    # A table from slower machines does not keep a faster one from its searches.
    assert not limited.fits(cell("beam_search", wall_s=81), DRAWN)
    assert limited.fits(cell("beam_search", wall_s=81), replace(DRAWN, pilot_wall_s=0.5))
    # Where the table does not say what a pilot takes, an arm takes all that it says.
    assert not arms(budget=Budget(deadline_s=40), stop_wall_s=None).fits(cell("beam_search", wall_s=41), DRAWN)


def test_half_a_vote_takes_half_as_long() -> None:
    limited = arms(budget=Budget(deadline_s=30))
    vote = cell("self_consistency", wall_s=41, n=12)
    assert not limited.fits(vote, DRAWN)
    assert limited.fits(vote, replace(DRAWN, samples=8))
    assert missing(vote, DRAWN) == 8
    assert missing(vote, replace(DRAWN, samples=20)) == 0
