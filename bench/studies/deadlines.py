"""Is the answer there at its deadline, from every strategy: measured over HTTP on an engine that takes its time.

The fake engine decodes at a fixed pace and the fake reward model takes a while to score, as real ones do; the default
script's solutions never end step by step, so that no search is over before its deadline. Each strategy has answered
once before the clock is looked at.

    python -m bench.studies.deadlines --requests 200 --out bench/results/deadlines.md
"""

import asyncio
import json
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

import strategies
from bench.stored.machine import machine, versions
from bench.studies.processes import free_port, running, tts_server

SHORTEST_S, LONGEST_S = 0.05, 5.0
LATE_S = 0.1
"""How much later an answer may be."""
WANTED = 0.99
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    strategy: str
    deadline_s: float
    seed: int

    @property
    def body(self) -> dict[str, Any]:
        n = {"n": 8} if "n" in strategies.get(self.strategy).options.model_fields else {}
        return {
            "model": "fake",
            "messages": [{"role": "user", "content": f"Question {self.seed}: what is {self.seed} + 2, step by step?"}],
            "seed": self.seed,
            "tts": {"strategy": self.strategy, "budget": {"deadline_s": self.deadline_s}, **n},
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it."""

    asked: Asked
    late_s: float
    """Seconds behind the deadline; negative before it."""
    fault: str | None
    """What is wrong with the body."""
    stop_reason: str | None
    whole: bool
    """Whether the returned text has its end."""


def plan(requests: int, seed: int) -> list[Asked]:
    """Requests over all strategies in turn, their deadlines spread evenly over the orders of magnitude."""
    rng, names = random.Random(seed), list(strategies.registry())
    asked = [
        Asked(names[i % len(names)], SHORTEST_S * (LONGEST_S / SHORTEST_S) ** rng.random(), i) for i in range(requests)
    ]
    rng.shuffle(asked)
    return asked


def fault_of(status: int, body: Any) -> str | None:
    """What an answer lacks of a chat completion; None if nothing."""
    try:
        if status != 200:
            return f"status {status}: {body['error']['message']}"
        (choice,) = body["choices"]
        usage, tts = body["usage"], body["tts"]
        right = {
            "content": isinstance(choice["message"]["content"], str),
            "finish_reason": choice["finish_reason"] in ("stop", "length"),
            "usage": usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"],
            "stop_reason": tts["stop_reason"] in (None, "deadline"),
            "trace_id": isinstance(tts["trace_id"], str),
        }
    except (KeyError, TypeError, ValueError) as error:
        return f"no chat completion: {error!r}"
    wrong = [name for name, holds in right.items() if not holds]
    return f"wrong: {', '.join(wrong)}" if wrong else None


async def answered(http: httpx.AsyncClient, asked: Asked) -> Answered:
    """Sends one request and looks at the clock."""
    began = time.monotonic()
    response = await http.post("/v1/chat/completions", json=asked.body)
    late_s = time.monotonic() - began - asked.deadline_s
    body = json.loads(response.content)
    fault = fault_of(response.status_code, body)
    if fault:
        return Answered(asked, late_s, fault, None, False)
    return Answered(asked, late_s, None, body["tts"]["stop_reason"], body["choices"][0]["finish_reason"] == "stop")


async def ask_all(url: str, asked: Sequence[Asked], clients: int) -> list[Answered]:
    """All answers, `clients` requests at a time."""
    left, done = iter(asked), list[Answered]()

    async def client(http: httpx.AsyncClient) -> None:
        for one in left:
            done.append(await answered(http, one))

    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as http, asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client(http))
    return done


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of them does not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(name: str, answers: Sequence[Answered]) -> str:
    """One line of the table."""
    late = [answer.late_s for answer in answers]
    punctual = sum(seconds <= LATE_S for seconds in late)
    stopped = [answer for answer in answers if answer.stop_reason]
    whole = f"{sum(answer.whole for answer in stopped)} of {len(stopped)}"
    figures = [f"{1000 * quantile(late, share):+.0f}" for share in (0.5, 0.99)]
    return f"| {name} | {len(answers)} | {punctual / len(answers):.1%} | {' | '.join(figures)} | {whole} |"


def table(answers: Sequence[Answered]) -> list[str]:
    """Lateness by strategy, and of all."""
    by_name: dict[str, list[Answered]] = {}
    for answer in answers:
        by_name.setdefault(answer.asked.strategy, []).append(answer)
    head = "| strategy | requests | in time | p50, ms | p99, ms | whole answers of those stopped |"
    return [
        head,
        "|---|---:|---:|---:|---:|---:|",
        *(row(name, by_name[name]) for name in sorted(by_name)),
        row("**all**", answers),
    ]


def main(
    requests: Annotated[int, typer.Option(min=1, help="Requests, over all strategies.")] = 200,
    clients: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    token_s: Annotated[float, typer.Option(help="Seconds that each decoding step takes.")] = 0.02,
    scoring_s: Annotated[float, typer.Option(help="Seconds that each call of the reward model takes.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Of the deadlines and their order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints how late answers are; fails where fewer than 99 % are in time or a body is wrong."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "TTS_SERVER_ENGINE_ARGS": json.dumps({"token_s": token_s}),
            "TTS_SERVER_PRM_ARGS": json.dumps({"delay_s": scoring_s}),
            "TTS_SERVER_DATA_DIR": folder,
        }
        command = tts_server("--engine", "fake", "--prm", "fake", "--port", str(port), "--log-level", "warning")
        log = Path(folder) / "server.log"
        with running(command, port, log, env):
            url = f"http://127.0.0.1:{port}"
            # What a strategy imports when it first runs is not part of any later request.
            asyncio.run(ask_all(url, [Asked(name, 1.0, 0) for name in strategies.registry()], clients))
            answers = asyncio.run(ask_all(url, plan(requests, seed), clients))
        said = log.read_text(errors="replace")[-2000:]
    faults = [f"{a.asked.strategy}, {a.asked.deadline_s:.3f} s: {a.fault}" for a in answers if a.fault]
    share = sum(answer.late_s <= LATE_S for answer in answers) / len(answers)
    lines = [
        f"{requests} requests with deadlines from {SHORTEST_S * 1000:.0f} ms to {LONGEST_S:.0f} s, {clients} at once; "
        f"each token takes {token_s * 1000:.0f} ms and each scoring {scoring_s * 1000:.0f} ms.",
        "",
        f"- {share:.1%} answered within their deadline + {LATE_S * 1000:.0f} ms ({WANTED:.0%} wanted)",
        f"- {requests - len(faults)} of {requests} bodies are whole",
        "",
        "Lateness is the client's clock from sending to the whole answer, less the deadline: negative is before it.",
        "",
        *table(answers),
    ]
    print("\n".join([*lines, *faults[:20], *([said] if faults else [])]))
    if out:
        command_line = shlex.join(["python", "-m", "bench.studies.deadlines", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server', 'fastapi', 'uvicorn', 'httpx')}."
        out.write_text("\n".join(["# Deadlines", "", f"    {command_line}", "", note, "", *lines, ""]))
    if faults or share < WANTED:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
