"""What the server says that requests cost, beside what the upstream has generated for them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.studies.faults.asks import TEXT
from bench.studies.faults.clients import Outcome
from bench.studies.faults.upstream import Count

PAGE = 1000


@dataclass(slots=True)
class Cost:
    """Of one request, by its traces."""

    completion_tokens: int = 0
    prm_tokens: int = 0
    prm: str | None = None
    stopped: bool = False
    """Whether a limit ended it, or its client."""


@dataclass(slots=True)
class Ledger:
    """The two beside each other."""

    exact: int = 0
    """Requests of which all was read, and all is counted."""
    cut: int = 0
    """Requests of which some was perhaps not read, and what is counted lies between."""
    tokens: int = 0
    """Counted by the server."""
    generated: int = 0
    """By the upstream, and read."""
    unread: int = 0
    """By the upstream, and perhaps not read."""
    wrong: list[str] = field(default_factory=list)


async def metered(url: str) -> dict[str, float]:
    """Each metric of the server's, summed over its labels."""
    sums: dict[str, float] = defaultdict(float)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        page = (await http.get("/metrics")).raise_for_status().text
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("tts_"):
            sums[name.partition("{")[0]] += float(value)
    return sums


async def traced(url: str) -> dict[int, Cost]:
    """Each request's cost, by the number that it sent as its id."""
    costs: dict[int, Cost] = defaultdict(Cost)
    after: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        while True:
            answer = await http.get("/v1/traces", params={"limit": PAGE, **after})
            page = answer.raise_for_status().json()
            for head in page["data"]:
                if (head["request_id"] or "").isdigit():
                    cost = costs[int(head["request_id"])]
                    cost.completion_tokens += head["usage"]["completion_tokens"]
                    cost.prm_tokens += head["usage"]["prm_tokens"]
                    cost.prm = head["prm"]
                    cost.stopped |= head["stop_reason"] is not None or head["status"] == "cancelled"
            if not page["has_more"]:
                return costs
            after = {"after": page["last_id"]}


def compared(outcomes: Iterable[Outcome], costs: Mapping[int, Cost], counts: Mapping[int, Count]) -> Ledger:
    """Every request's cost in its answer, its trace and at the upstream."""
    ledger = Ledger()
    for outcome in outcomes:
        number = outcome.ask.number
        cost, count = costs.get(number, Cost()), counts.get(number, Count())
        told = outcome.answer.usage if outcome.answer else None
        if told and (told["completion_tokens"], told["prm_tokens"]) != (cost.completion_tokens, cost.prm_tokens):
            ledger.wrong.append(f"{_told(outcome)}: its answer tells {dict(told)}, its trace {cost}")
        ledger.tokens += cost.completion_tokens
        ledger.generated += count.tokens
        ledger.unread += count.unread
        scored = cost.prm_tokens if cost.prm == "judge" else count.prm_tokens
        most = (count.tokens + count.unread, count.prm_tokens + count.prm_unread)
        least = _least(outcome, cost, count)
        if not (least[0] <= cost.completion_tokens <= most[0] and least[1] <= scored <= most[1]):
            ledger.wrong.append(f"{_told(outcome)}: its trace tells {cost}, the upstream {count}")
        elif least == most:
            ledger.exact += 1
        else:
            ledger.cut += 1
    return ledger


def _least(outcome: Outcome, cost: Cost, count: Count) -> tuple[int, int]:
    """The tokens, generated and of verdicts, that have to be counted."""
    if cost.stopped or outcome.answer is None:
        # What has come, and nobody has looked at before the end, is not known.
        return 0, 0
    if outcome.ask.strategy in ("single", TEXT):
        # One call at a time that nobody gives up is read to wherever it breaks.
        return count.tokens, count.prm_tokens
    return count.tokens - count.broken, count.prm_tokens - count.prm_broken


def _told(outcome: Outcome) -> str:
    ask, answer = outcome.ask, outcome.answer
    said = f"{answer.status} {answer.error or 'an answer'}" if answer else "nothing"
    return f"request {ask.number} ({ask.strategy}, {ask.mark}, {said} after {outcome.seconds:.2f} s)"
