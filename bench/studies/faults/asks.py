"""Which requests are made: every strategy, every route that generates, with which faults and which manners."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import strategies
from bench.studies.faults.kinds import FAULTS, PRM_FAULTS, Fault, Mark

Leave = Literal["connected", "head", "body", "asked", "waiting", "begun", "streaming"]
"""When a client vanishes: before it has said anything, in its headers, in its body, behind them, a while later, with
the first bytes of the answer, with more of them."""
LEAVES: tuple[Leave, ...] = ("connected", "head", "body", "asked", "waiting", "begun", "streaming")

CHAT, RESPONSES, TEXT, SCORE = "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/prm/score"
SMALL: dict[str, Any] = {
    "n": 3,
    "beam_width": 2,
    "branch": 2,
    "max_steps": 3,
    "parallel": 2,
    "breadth": 2,
    "n_generate": 2,
    "n_evaluate": 1,
    "depth": 2,
    "layers": 1,
    "proposers": 2,
    "revisions": 1,
    "warmup": 2,
    "iterations": 2,
    "max_thinking_tokens": 32,
}
"""Of the options that a strategy has."""
FAULTY, PRM_FAULTY, LEAVING, SLOW = 0.55, 0.2, 0.1, 0.02
"""Shares of the requests. A slow client reads a little now and then."""
DEADLINES_S = (0.5, 1.0, 1.5, 2.0)
SCORED_WITHIN_S = 8.0
"""A scoring has no deadline of its own; no fault lets it hang, but each call may be tried three times."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request."""

    number: int
    path: str
    body: Mapping[str, Any]
    mark: Mark
    deadline_s: float
    leave: Leave | None = None
    resets: bool = False
    """Whether a client that vanishes resets its connection."""
    slow: bool = False

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def strategy(self) -> str:
        """What is asked for; the path where that has no strategies."""
        return str(self.body["tts"]["strategy"]) if "tts" in self.body else self.path


def asks(count: int, seed: int, first: int = 0) -> list[Ask]:
    """Requests, the same for the same seed; the strategies take turns."""
    names = list(strategies.registry())
    return [_ask(number, names, random.Random(f"{seed}|{number}")) for number in range(first, first + count)]


def _ask(number: int, names: Sequence[str], rng: random.Random) -> Ask:
    path = rng.choices([CHAT, RESPONSES, TEXT, SCORE], [82, 8, 6, 4])[0]
    mark = _mark(number, rng, hangs=path != SCORE)
    deadline_s = rng.choice(DEADLINES_S)
    question = f"What is {rng.randrange(99)} + {rng.randrange(99)}? {mark}"
    tts = _tts(names[number % len(names)], deadline_s, rng)
    stream = rng.random() < 0.5
    body: dict[str, Any] = {"model": "stand-in"}
    match path:
        case "/v1/chat/completions":
            body |= {"messages": [{"role": "user", "content": question}], "tts": tts}
            body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        case "/v1/responses":
            body |= {"input": question, "tts": tts} | ({"stream": True} if stream else {})
        case "/v1/completions":
            body |= {"prompt": question, "max_tokens": 64}
            body["tts"] = {"strategy": "single", "budget": {"deadline_s": deadline_s}}
            body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        case _:
            deadline_s = SCORED_WITHIN_S
            body = {"question": question, "solution": "1 and 2 make 3.\n\nThe answer is 3.", "prm": _prm(rng)}
    leave = rng.choice(LEAVES) if rng.random() < LEAVING else None
    return Ask(number, path, body, mark, deadline_s, leave, rng.random() < 0.5, rng.random() < SLOW)


def _mark(number: int, rng: random.Random, *, hangs: bool) -> Mark:
    faults = [fault for fault in FAULTS if fault != "long" and (hangs or fault not in ("hang", "stall"))]
    of_prm = [fault for fault in PRM_FAULTS if hangs or fault != "hangs"]
    fault: Fault = rng.choice(faults) if rng.random() < FAULTY else "none"
    return Mark(
        number,
        fault,
        rng.choice(of_prm) if rng.random() < PRM_FAULTY else "none",
        rng.choice([0.2, 0.5, 1.0]),
    )


def _tts(name: str, deadline_s: float, rng: random.Random) -> dict[str, Any]:
    entry = strategies.get(name)
    options = {key: value for key, value in SMALL.items() if key in entry.options.model_fields}
    budget: dict[str, Any] = {"deadline_s": deadline_s}
    if rng.random() < 0.3:
        budget["max_tokens"] = rng.randrange(20, 300)
    prm = {"prm": _prm(rng)} if entry.scored else {}
    return {"strategy": name, **options, **prm, "budget": budget}


def fine(number: int, fault: Fault = "none", **fields: Any) -> Ask:
    """A chat with which nothing is wrong."""
    mark = Mark(number, fault)
    body = {"model": "stand-in", "messages": [{"role": "user", "content": f"What is 2 + 2? {mark}"}], **fields}
    return Ask(number, CHAT, body, mark, deadline_s=60.0)


def _prm(rng: random.Random) -> str:
    return rng.choice(["fake", "fake", "judge"])
