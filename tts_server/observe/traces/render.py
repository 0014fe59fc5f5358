"""A record as JSON: `head` says what was asked and what it cost, `body` what was done. Texts only where they may be."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import orjson

import strategies
from prm import PRMInputError, StepScores
from strategies.core.account import Budget, BudgetSpent, Usage
from strategies.core.contracts import Candidate, Final, Incumbent, Progress, Prompt, Sampling
from strategies.record.recorder import CallRecord, SampleRecord, ScoringRecord
from tts_server.errors import translate
from tts_server.observe.traces.recording import Record

Json = dict[str, Any]
Keep = Literal["redacted", "full"]
_NUMBERS = (bool, int, float, type(None))
_SAMPLING, _BUDGET, _USAGE = (tuple(field.name for field in fields(kind)) for kind in (Sampling, Budget, Usage))
_PLAIN = Sampling()


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is stored."""

    id: str
    owner: str
    created: float
    strategy: str
    head: bytes
    body: bytes


def row(record: Record, keep: Keep) -> Row:
    """The record as it is stored; `redacted` leaves out whatever a client or a model wrote."""
    made = _Rendered(record, keep)
    return Row(
        record.id,
        record.owner,
        record.created,
        record.plan.strategy,
        _dumped(made.head()),
        _dumped(made.body()),
    )


class _Rendered:
    def __init__(self, record: Record, keep: Keep) -> None:
        self._record = record
        self._keep = keep
        self._full = keep == "full"
        self._texts = [sample.text for call in record.recorder.calls for sample in call.samples] if self._full else []

    def head(self) -> Json:
        record, plan = self._record, self._record.plan
        return {
            "id": record.id,
            "object": "trace",
            "created": record.created,
            "request_id": record.request_id,
            "content": self._keep,
            "model": record.model,
            "strategy": plan.strategy,
            "options": self._options(),
            "prm": plan.prm,
            "choices": plan.choices,
            "budget": {
                name: value for name, value in _values(plan.account.budget, _BUDGET).items() if value is not None
            },
            "sampling": self._sampling(plan.task.sampling, _PLAIN),
            "status": record.status,
            "stop_reason": plan.account.stop_reason,
            "error": self._error(record.recorder.error),
            "duration_s": _rounded(record.recorder.ended_s),
            "usage": _values(plan.account.usage, _USAGE),
        }

    def body(self) -> Json:
        recorder = self._record.recorder
        return {
            "prompts": [self._prompt(prompt) for prompt in recorder.prompts] if self._full else None,
            # Each by itself: to render all at once would keep the event loop waiting for so long.
            "calls": [orjson.Fragment(_dumped(self._call(call))) for call in recorder.calls],
            "scorings": [orjson.Fragment(_dumped(self._scoring(scoring))) for scoring in recorder.scorings],
            "events": [self._event(at_s, event) for at_s, event in recorder.events],
            "final": self._final(recorder.final) if recorder.final else None,
        }

    def _options(self) -> Json:
        options = self._record.plan.options
        if self._full:
            return {name: _plain(value) for name, value in options.items()}
        known = strategies.get(self._record.plan.strategy).options.model_fields
        return {
            name: value
            for name, value in options.items()
            if isinstance(value, _NUMBERS) or value == known[name].default or value in _words(known[name].annotation)
        }

    def _sampling(self, sampling: Sampling, usual: Sampling) -> Json:
        if sampling == usual:
            return {}
        changed = {name: value for name in _SAMPLING if (value := getattr(sampling, name)) != getattr(usual, name)}
        return {name: value for name, value in changed.items() if self._full or isinstance(value, _NUMBERS)}

    def _prompt(self, prompt: Prompt) -> Json:
        return {"messages": list(prompt.messages), "template": dict(prompt.template)}

    def _call(self, call: CallRecord) -> Json:
        return {
            "started_s": _rounded(call.started_s),
            "ended_s": _rounded(call.ended_s),
            "prompt": call.prompt,
            "parents": call.parents,
            "sampling": self._sampling(call.sampling, self._record.plan.task.sampling),
            "error": self._error(call.error),
            "samples": [self._sample(sample) for sample in call.samples],
        }

    def _sample(self, sample: SampleRecord) -> Json:
        said: Json = {
            "ended_s": _rounded(sample.ended_s),
            "prompt_tokens": sample.prompt_tokens,
            "cached_tokens": sample.cached_tokens,
            "completion_tokens": sample.completion_tokens,
            "finish_reason": sample.finish_reason,
        }
        if self._full:
            said |= {"text": sample.text, "stop": sample.stop}
            said |= {"refusal": sample.refusal} if sample.refusal else {}
        return said | ({"error": self._error(sample.error)} if sample.error else {})

    def _scoring(self, scoring: ScoringRecord) -> Json:
        results = scoring.results or [StepScores(())] * len(scoring.solutions)
        return {
            "started_s": _rounded(scoring.started_s),
            "ended_s": _rounded(scoring.ended_s),
            "tokens": scoring.tokens,
            "error": self._error(scoring.error),
            "solutions": [
                {"sample": solution.sample, "scores": result.scores or None}
                | ({"error": self._error(PRMInputError(result.fault))} if result.fault is not None else {})
                | ({"steps": solution.steps} if solution.steps and self._full else {})
                for solution, result in zip(scoring.solutions, results, strict=True)
            ],
        }

    def _event(self, at_s: float, event: Progress | Incumbent) -> Json:
        said: Json = {"at_s": _rounded(at_s)}
        match event:
            case Progress(text):
                return said | {"kind": "progress"} | ({"text": text} if self._full else {})
            case Incumbent(candidate):
                said |= {"kind": "incumbent", "sample": candidate.sample.number, "score": candidate.score}
                return said | ({"answer": candidate.answer} if self._full else {})

    def _final(self, final: Final) -> Json:
        return {
            "selector": final.selector,
            "confidence": final.confidence,
            "votes": [
                {"count": vote.count, "weight": vote.weight} | ({"answer": vote.answer} if self._full else {})
                for vote in final.votes
            ],
            "ranking": final.ranking,
            "candidates": [self._candidate(candidate) for candidate in final.candidates],
        } | ({"decision": final.decision} if final.decision is not None else {})

    def _candidate(self, candidate: Candidate) -> Json:
        end = candidate.sample.number
        said: Json = {
            "sample": end,
            "score": candidate.score,
            "step_scores": candidate.step_scores,
            "weight": candidate.weight,
            "finish_reason": candidate.sample.finish_reason,
            "completion_tokens": candidate.sample.completion_tokens,
        }
        if not self._full:
            return said
        # Most say what their last sample says.
        whole = end is not None and self._texts[end] == candidate.text
        return said | {"answer": candidate.answer} | ({} if whole else {"text": candidate.text})

    def _error(self, error: Exception | None) -> Json | None:
        if error is None:
            return None
        if isinstance(error, BudgetSpent):
            return {"type": "BudgetSpent", "code": error.reason}
        told = translate(error)
        said: Json = {"type": type(error).__name__, "code": told.code}
        # As the client is told it: what is nobody's business there is none here.
        return said | ({"message": told.message} if self._full else {})


def _words(annotation: Any) -> Iterator[str]:
    """The words that an option can be, where it is one of some words that are known."""
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        yield from _words(part)


def _values(record: Budget | Usage, names: Sequence[str]) -> Json:
    """What it holds; a limit that is not set is left out."""
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def _plain(value: Any) -> Any:
    """An option as JSON: examples and graphs are models."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part) for part in value]
    return value.model_dump() if hasattr(value, "model_dump") else value


def _dumped(value: Json) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
