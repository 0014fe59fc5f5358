"""A search drawn as a tree."""

import io
import re

import pytest
from rich.console import Console
from searching import world
from tracing import record_of

from tts_server.engines.fake import FakeEngine
from tts_server.observe.traces import view
from tts_server.observe.traces.render import Keep, row
from tts_server.observe.traces.tree import tree, width

Json = view.Json


def shown(strategy: str, keep: Keep = "full", **options: object) -> Json:
    stored = row(record_of(strategy, **options), keep)
    return view.shown(stored.head.decode(), stored.body)


def drawn(trace: Json, width: int = 200) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(tree(trace), highlight=False, soft_wrap=True)
    return text.getvalue()


def numbers(text: str) -> list[int]:
    """The samples of all rows, whose numbers stand before the state."""
    rows = re.findall(r"── ([\d →]+)  [a-z]+  ", text)
    return [int(number) for each in rows for number in each.split(" → ")]


@pytest.mark.parametrize("strategy", ["single", "best_of_n", "beam_search", "mcts", "dvts", "rebase", "self_refine"])
def test_every_sample_stands_once_below_what_it_goes_on_from(strategy: str) -> None:
    trace = shown(strategy)
    text = drawn(trace)
    every = [sample["id"] for call in trace["calls"] for sample in call["samples"]]
    assert sorted(numbers(text)) == every
    parents = {sample["id"]: call["parents"] for call in trace["calls"] for sample in call["samples"]}
    above: dict[int, int] = {}
    for line in text.splitlines():
        if not (found := re.search(r"── ([\d →]+)  [a-z]+  ", line)):
            continue
        depth, chain = line.index("── "), [int(number) for number in found[1].split(" → ")]
        places = [*(above[at] for at in sorted(above, reverse=True) if at < depth), None]
        assert [parents[number][0] if parents[number] else None for number in chain] == [places[0], *chain[:-1]]
        above = {at: number for at, number in above.items() if at < depth} | {depth: chain[-1]}


def test_it_says_what_was_asked_how_it_was_chosen_and_what_it_cost() -> None:
    trace = shown("best_of_n", engine=FakeEngine(world(1.0)))
    head = drawn(trace).splitlines()
    usage = trace["usage"]
    assert head[0] == f"{trace['id']}: best_of_n, done"
    assert head[1].startswith(f"4 samples, {usage['completion_tokens']} tokens, {usage['prm_tokens']} scored, ")
    assert "n=4" in head[2]
    assert head[3].startswith("votes 1 ×4; chosen by ")
    (best,) = [line for line in head if "returned" in line]
    assert re.search(r"\d  returned  \d\.\d{3}  \d+ tokens  eos  answers 1$", best)


def test_a_redacted_one_has_structure_and_scores_and_no_text() -> None:
    text = drawn(shown("beam_search", "redacted"))
    assert re.search(r"returned  \d\.\d{3}", text)
    assert "pruned" in text
    assert "answers" not in text
    assert "Thought" not in text


def test_a_step_by_step_solution_on_which_nothing_branches_is_one_row() -> None:
    text = drawn(shown("beam_search", n=1, beam_width=1))
    assert re.search(r"└── 0 → 1 → 2  returned  [\d.]+ → [\d.]+ → [\d.]+  \d+ tokens", text)


def test_a_deep_one_keeps_room_for_what_its_rows_say() -> None:
    trace = shown("beam_search", engine=FakeEngine(world(1.0, steps=30)), n=4, beam_width=2)
    assert width(trace, 80) > 4 * 29 + 40
    text = drawn(trace, width(trace, 80))
    every = [sample["id"] for call in trace["calls"] for sample in call["samples"]]
    assert sorted(numbers(text)) == every
    rows = [line for line in text.splitlines() if "── " in line]
    assert [row for row in rows if not re.search(r"  \d+ tokens  (stop|eos)  \S", row)] == []
    assert width(shown("single"), 80) == 80
