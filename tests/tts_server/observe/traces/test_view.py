"""What became of each sample, as it is shown."""

from collections import Counter
from typing import Any

import orjson
import pytest
from searching import broken, world
from tracing import record_of

import strategies
from strategies.core.contracts import Chunk
from tts_server.engines.fake import FakeEngine
from tts_server.observe.traces import view
from tts_server.observe.traces.recording import Record
from tts_server.observe.traces.render import row


def shown(record: Record, *, full: bool = True) -> dict[str, Any]:
    stored = row(record, "full" if full else "redacted")
    return view.shown(stored.head.decode(), stored.body)


def states(trace: dict[str, Any]) -> dict[int, str]:
    return {sample["id"]: sample["state"] for call in trace["calls"] for sample in call["samples"]}


def test_a_beam_search_shows_what_it_kept_and_what_it_pruned() -> None:
    trace = shown(record_of("beam_search", n=4, beam_width=2, engine=FakeEngine(world())))
    found = states(trace)
    assert list(found) == list(range(len(found)))
    best = trace["final"]["candidates"][trace["final"]["ranking"][0]]
    above = {sample["id"]: call["parents"] for call in trace["calls"] for sample in call["samples"]}
    path = [best["sample"]]
    while above[path[-1]]:
        path += above[path[-1]]
    assert len(path) == 3
    assert {number for number, state in found.items() if state == "returned"} == set(path)
    continued = {parent for call in trace["calls"] for parent in call["parents"]}
    assert continued - set(path) == {number for number, state in found.items() if state == "continued"}
    ends = {candidate["sample"] for candidate in trace["final"]["candidates"]}
    pruned = {number for number, state in found.items() if state == "pruned"}
    assert pruned
    assert pruned == set(found) - set(path) - continued - ends


def test_a_sample_shows_the_score_of_what_ends_with_it() -> None:
    trace = shown(record_of("best_of_n"))
    scores = {s["sample"]: s["scores"][-1] for scoring in trace["scorings"] for s in scoring["solutions"]}
    assert len(scores) == 4
    assert {s["id"]: s["score"] for call in trace["calls"] for s in call["samples"]} == scores


def test_a_candidate_shows_its_text_wherever_it_is_kept() -> None:
    for strategy in strategies.registry():
        record = record_of(strategy)
        assert record.recorder.final
        texts = [candidate.text for candidate in record.recorder.final.candidates]
        trace = shown(record)
        assert [candidate["text"] for candidate in trace["final"]["candidates"]] == texts
        redacted = shown(record, full=False)
        assert all("text" not in candidate for candidate in redacted["final"]["candidates"])
        assert states(redacted) == states(trace)


def test_failed_samples_say_so() -> None:
    assert Counter(states(shown(record_of(engine=FakeEngine(broken(world(), 0, 2))))).values())["failed"] == 2


@pytest.mark.parametrize(
    ("reason", "state"), [(None, "aborted"), ("budget", "cut"), ("eos", "open"), ("error", "failed")]
)
def test_what_a_search_leaves_that_came_to_no_end(reason: Any, state: str) -> None:
    record = record_of()
    record.recorder.final = None
    with record.recorder.call(record.plan.task.prompt, record.plan.task.sampling, range(4, 5)) as note:
        note(Chunk(0, "half", (), 1, finish_reason=reason))
    found = states(shown(record))
    assert list(found.values()) == ["open"] * 4 + [state]


def test_a_call_that_failed_has_failed_samples() -> None:
    record = record_of()
    with (
        pytest.raises(ConnectionError),
        record.recorder.call(record.plan.task.prompt, record.plan.task.sampling, range(4, 6)),
    ):
        raise ConnectionError
    assert list(states(shown(record)).values())[4:] == ["failed", "failed"]


def test_a_line_is_the_whole_record() -> None:
    stored = row(record_of("best_of_n"), "full")
    line = view.line(stored.head.decode(), stored.body)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert orjson.loads(line) == view.shown(stored.head.decode(), stored.body)
