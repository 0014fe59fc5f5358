"""How long short questions take beside large searches, with and without admission, on a fake engine with few slots.

Two servers of the same engine take turns: one lets calls in as its default does, the other lets in everything, so that
calls wait inside the engine, first come. An engine step takes `--token-s` and grows `--slots` samples.

python -m bench.studies.fairness --out bench/results/fairness.md
"""

import asyncio
import json
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import httpx
import typer

from bench.stats.tables import Sheet
from bench.stored.machine import machine, versions
from bench.studies.processes import free_port, running, tts_server

KEYS = {"team": "sk-team", "person": "sk-person"}
ALL = 1_000_000
"""Samples that may grow at once where nobody is to wait outside of the engine."""
SEARCH = {"strategy": "beam_search", "n": 64, "beam_width": 4}
PROBLEM = "Tell me in your own words, step by step, what this sentence with a number says and why it says so: {}"
QUESTION = "What is {} + 4?"
SINGLE_TOKENS = 16


class Case(NamedTuple):
    """What runs beside the questions."""

    name: str
    searches: int
    """At once, one after the other for as long as questions come."""
    owner: str
    """Whose they are; the questions are the person's."""


CASES = (
    Case("nothing", 0, "team"),
    Case("one search of another key", 1, "team"),
    Case("one search of the same key", 1, "person"),
    Case("four searches of another key", 4, "team"),
)


class Seen(NamedTuple):
    """One round of one server."""

    waits: list[float]
    """Seconds of each question."""
    searches: list[float]
    """Seconds of each search that ended in time."""
    tokens_per_s: float


async def ask(http: httpx.AsyncClient, owner: str, content: str, **fields: Any) -> int:
    """Asks one question; the tokens that it cost."""
    chat = [{"role": "user", "content": content}]
    headers = {"authorization": f"Bearer {KEYS[owner]}"}
    body = {"model": "fake", "messages": chat, **fields}
    response = await http.post("/v1/chat/completions", json=body, headers=headers)
    response.raise_for_status()
    return int(response.json()["usage"]["completion_tokens"])


async def measure(url: str, case: Case, questions: int, every_s: float, seed: int) -> Seen:
    """Asks questions, a Poisson stream of them, beside the searches of a case."""
    waits: list[float] = []
    searches: list[float] = []
    tokens = 0
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:

        async def search(number: int) -> None:
            nonlocal tokens
            while True:
                began = time.perf_counter()
                tokens += await ask(http, case.owner, PROBLEM.format(number), tts=SEARCH)
                searches.append(time.perf_counter() - began)

        async def question(number: int) -> None:
            nonlocal tokens
            began = time.perf_counter()
            tokens += await ask(http, "person", QUESTION.format(number), max_tokens=SINGLE_TOKENS)
            waits.append(time.perf_counter() - began)

        rng = random.Random(seed)
        beside = [asyncio.create_task(search(number)) for number in range(case.searches)]
        began = time.perf_counter()
        # The first call of a search, its largest, is in the engine before the first question comes.
        await asyncio.sleep(5 * every_s)
        async with asyncio.TaskGroup() as group:
            for number in range(questions):
                group.create_task(question(100 + number))
                await asyncio.sleep(rng.expovariate(1 / every_s))
        seconds = time.perf_counter() - began
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return Seen(waits, searches, tokens / seconds)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(case: Case, name: str, rounds: Sequence[Seen]) -> list[str]:
    waits = [wait for seen in rounds for wait in seen.waits]
    searches = [seconds for seen in rounds for seconds in seen.searches]
    return [
        case.name,
        name,
        *(f"{percentile(waits, share):.2f}" for share in (0.5, 0.9, 0.99)),
        f"{max(waits):.2f}",
        f"{statistics.mean(searches):.1f}" if searches else "",
        f"{statistics.mean(seen.tokens_per_s for seen in rounds):.0f}",
    ]


def compare(urls: dict[str, str], questions: int, every_s: float, rounds: int) -> Sheet:
    """Every case on every server, the servers in turns."""
    lines = []
    for case in CASES:
        seen: dict[str, list[Seen]] = {name: [] for name in urls}
        for number in range(rounds):
            for name, url in urls.items():
                seen[name].append(asyncio.run(measure(url, case, questions, every_s, number)))
        lines += [row(case, name, each) for name, each in seen.items()]
        print("\n".join(" | ".join(line) for line in lines[-len(urls) :]), flush=True)
    heads = ("beside", "admission", "p50, s", "p90, s", "p99, s", "most, s", "a search, s", "tokens/s")
    return Sheet(heads, lines, names=2)


def main(
    questions: Annotated[int, typer.Option(help="Short questions a round.")] = 40,
    every_s: Annotated[float, typer.Option(help="Seconds between two of them, in the mean.")] = 0.1,
    rounds: Annotated[int, typer.Option(help="Rounds of each case.")] = 5,
    slots: Annotated[int, typer.Option(help="Samples that an engine step grows.")] = 16,
    token_s: Annotated[float, typer.Option(help="Seconds of an engine step.")] = 0.02,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints how long the questions took."""
    args = {"slots": slots, "token_s": token_s}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        urls = {}
        for name, limits in (("yes", {}), ("no", {"max_live_samples": ALL, "max_waiting_samples": ALL})):
            config, port = Path(folder) / f"{name}.toml", free_port()
            top = {**limits, "api_keys": ",".join(f"{owner}:{key}" for owner, key in KEYS.items()), "traces": "off"}
            config.write_text(_toml(top) + "[engine_args]\n" + _toml(args))
            command = tts_server("--engine", "fake", "--prm", "fake", "--port", str(port), "--config", str(config))
            stack.enter_context(running([*command, "--log-level", "warning"], port, Path(folder) / f"{name}.log"))
            urls[name] = f"http://127.0.0.1:{port}"
        sheet = compare(urls, questions, every_s, rounds)
    if out:
        command_line = shlex.join(["python", "-m", "bench.studies.fairness", *sys.argv[1:]])
        note = (
            f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'httpx')}. A fake engine that grows {slots} "
            f"samples a step of {1000 * token_s:g} ms; {questions} questions of {SINGLE_TOKENS} tokens a round, one in "
            f"{every_s:g} s in the mean, {rounds} rounds; searches are beam searches of n = {SEARCH['n']}, one after "
            "the other. `a search` is the mean of those that ended while questions came."
        )
        out.write_text("\n".join(["# Fairness", "", f"    {command_line}", "", note, "", *sheet.markdown(), ""]))


def _toml(table: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


if __name__ == "__main__":
    typer.run(main)
