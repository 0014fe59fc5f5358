"""A stored record as it is shown: with the numbers of its samples, their scores, and what became of each."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson

Json = dict[str, Any]
State = Literal["returned", "candidate", "continued", "pruned", "open", "cut", "aborted", "failed"]
"""What became of a sample: its answer, or part of it, was returned; it ends a candidate that was not; something goes on
from it; nothing does; nothing does and the search did not end by itself; the budget cut it; it was aborted; it failed.
"""


def line(head: str, body: bytes, feedback: str | None = None) -> bytes:
    """The whole record as a line of JSONL."""
    return orjson.dumps(shown(head, body, feedback), option=orjson.OPT_APPEND_NEWLINE)


def shown(head: str, body: bytes, feedback: str | None = None) -> Json:
    """The whole record, with what was said of its answer."""
    told, done = orjson.loads(head), orjson.loads(body)
    done["calls"] = list(_numbered(done["calls"]))
    samples = [sample for call in done["calls"] for sample in call["samples"]]
    _fill(samples, done)
    for sample, state in zip(samples, _states(told, done, samples), strict=True):
        sample["state"] = state
    return {**told, **done, "feedback": orjson.loads(feedback) if feedback else None}


def _numbered(calls: list[Json]) -> Iterator[Json]:
    samples = 0
    for number, call in enumerate(calls):
        drawn = [{"id": id_, **sample, "score": None} for id_, sample in enumerate(call["samples"], samples)]
        samples += len(drawn)
        yield {"id": number, **call, "samples": drawn}


def _fill(samples: list[Json], done: Json) -> None:
    """Puts where it belongs what is kept in one place only."""
    for scoring in done["scorings"]:
        for solution in scoring["solutions"]:
            if solution["sample"] is not None and solution["scores"]:
                samples[solution["sample"]]["score"] = solution["scores"][-1]
    for candidate in done["final"]["candidates"] if done["final"] else ():
        if candidate["sample"] is not None and "answer" in candidate:
            candidate.setdefault("text", samples[candidate["sample"]]["text"])


def _states(told: Mapping[str, Any], done: Mapping[str, Any], samples: list[Json]) -> Iterator[State]:
    parents = {sample["id"]: call["parents"] for call in done["calls"] for sample in call["samples"]}
    lost = {sample["id"] for call in done["calls"] if call["error"] for sample in call["samples"]}
    continued = {parent for above in parents.values() for parent in above}
    final = done["final"] or {"candidates": [], "ranking": []}
    ends = [candidate["sample"] for candidate in final["candidates"]]
    returned = _with_ancestors([ends[place] for place in final["ranking"][: told["choices"]]], parents)
    for sample in samples:
        number, reason = sample["id"], sample["finish_reason"]
        if reason == "error" or (number in lost and reason is None):
            yield "failed"
        elif number in returned:
            yield "returned"
        elif number in ends:
            yield "candidate"
        elif reason == "budget":
            yield "cut"
        elif reason is None:
            yield "aborted"
        elif number in continued:
            yield "continued"
        else:
            yield "pruned" if done["final"] else "open"


def _with_ancestors(numbers: list[int | None], parents: Mapping[int, list[int]]) -> set[int]:
    reached: set[int] = set()
    stack = [number for number in numbers if number is not None]
    while stack:
        number = stack.pop()
        if number not in reached:
            reached.add(number)
            stack += parents[number]
    return reached
