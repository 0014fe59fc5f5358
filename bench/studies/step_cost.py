"""What a large step search costs the server itself, measured with an engine and a reward model that answer at once.

Searches of 256 samples and 40 steps of 20 tokens, in process; the engine tells each token by itself, as a real one
does. The time is the processor's for all of the process, so the stand-ins' own time is in it.

    python -m bench.studies.step_cost --out bench/results/step_cost.md
"""

import asyncio
import shlex
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.stored.machine import machine, versions
from bench.studies.overhead import interval
from prm import FakePRM
from strategies import get
from strategies.core.account import Account
from strategies.core.contracts import Chunk, Final, Prompt, Sampling, Task, TokenIds
from strategies.core.metered import MeteredEngine, MeteredPRM

SAMPLES, STEPS, STEP_TOKENS = 256, 40, 20
SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "beam_search": {"n": SAMPLES, "beam_width": 4},
    "dvts": {"n": SAMPLES, "beam_width": 4},
    "rebase": {"n": SAMPLES},
    "particle_filter": {"n": SAMPLES},
}


class InstantEngine:
    """Says steps of 20 tokens, no two alike, and an answer at the 40th; needs no time for it."""

    model = "instant"
    max_model_len: int | None = None
    continues = True

    def __init__(self) -> None:
        self._next = 0
        self.steps = 0

    async def encode(self, prompt: Prompt) -> TokenIds:
        return prompt.token_ids or tuple(range(64))

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        read = len(prompt.token_ids)
        self.steps += n
        last = (read - 64) // STEP_TOKENS == STEPS - 1
        for token in range(STEP_TOKENS):
            await asyncio.sleep(0)
            for index in range(n):
                self._next += 1
                end = token == STEP_TOKENS - 1
                yield Chunk(
                    index,
                    ("\\boxed{7}" if last else "\n\n") if end else f"{self._next} ",
                    (self._next,),
                    completion_tokens=1,
                    prompt_tokens=0 if token else read,
                    finish_reason=("eos" if last else "stop") if end else None,
                    stop=None if last or not end else "\n\n",
                )


async def search(name: str, seed: int) -> tuple[float, int]:
    """Processor milliseconds a step of one search, and how many steps it grew."""
    account = Account()
    task = Task(Prompt(({"role": "user", "content": "How much is it?"},)), Sampling(temperature=0.8, seed=seed))
    instant = InstantEngine()
    engine, prm = MeteredEngine(instant, account), MeteredPRM(FakePRM(seed=seed), account)
    began = time.process_time()
    events = get(name).run(task, engine, prm, account, max_steps=STEPS, **SEARCHES[name])
    finals = 0
    async with aclosing(events) as stream:
        async for event in stream:
            finals += isinstance(event, Final)
    if finals != 1:
        raise RuntimeError(f"{name} ended {finals} times")
    return 1000 * (time.process_time() - began) / instant.steps, instant.steps


def main(
    rounds: Annotated[int, typer.Option(help="Searches of each strategy that count.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints each strategy's time a step."""
    table = ["| strategy | steps grown | ms a step, median | 95 % interval |", "|---|---|---|---|"]
    print("\n".join(table), flush=True)
    for name in SEARCHES:
        runs = [asyncio.run(search(name, seed)) for seed in range(rounds + 1)][1:]
        spent = [ms for ms, _ in runs]
        low, high = interval(spent)
        table.append(f"| {name} | {runs[0][1]} | {statistics.median(spent):.3f} | {low:.3f} to {high:.3f} |")
        print(table[-1], flush=True)
    if out:
        command = shlex.join(["python", "-m", "bench.studies.step_cost", *sys.argv[1:]])
        note = f"{machine()}; {versions('tts-server')}; {SAMPLES} samples, {STEPS} steps of {STEP_TOKENS} tokens; "
        note += f"seeds 1 to {rounds}."
        out.write_text("\n".join(["# A step's own cost", "", f"    {command}", "", note, "", *table, ""]))


if __name__ == "__main__":
    typer.run(main)
