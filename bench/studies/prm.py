"""What keeping states and gathering calls save a reward model, measured in one process.

1. Tokens that it computes in a beam search, against scoring every beam in full at every round; and how far the scores
   of the two lie apart.
2. Steps scored per second by searches that run at once, against scoring each solution in full and one by one. The
   contestants take turns, so a ratio compares neighbours in time.

The model is any language model, asked as one of the family `math_shepherd`: what a score says plays no role here.
Prints two tables; `--out` writes them with their command.

    python -m bench.studies.prm --model smollm2-135m-instruct --out bench/results/prm.md
"""

import asyncio
import itertools
import random
import shlex
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.stored.machine import machine, versions
from bench.studies.overhead import interval, pulled
from prm import FamilyPRM, aggregate
from prm.backend.local import TransformersBackend, load_prm

FAMILY = "math_shepherd"
SEARCHES = (1, 4, 16, 64)
PHRASE = "so we add the apples that she sold in May to what is left and get half of each box as before"
QUESTION = (
    "Natalia sold clips to {} of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?"
)
"""After a problem of GSM8K's training split (MIT)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A beam search."""

    beams: int
    rounds: int
    words: int
    """Of a step."""

    @property
    def steps(self) -> int:
        """That it scores."""
        return self.beams * self.rounds


WHOLE = Shape(beams=16, rounds=20, words=20)
SHORT = Shape(beams=4, rounds=3, words=20)


class Search:
    """A beam search whose steps are drawn: each round keeps the better quarter and grows it back.

    Args:
        shape: its size.
        number: of the problem; another one shares no tokens with it after its first few words.
        seed: of the steps.
    """

    def __init__(self, shape: Shape, number: int, seed: int) -> None:
        self.question = QUESTION.format(number)
        self.beams: list[list[str]] = [[]] * shape.beams
        self._shape = shape
        self._draw = random.Random(f"{seed} {number}")

    def grow(self) -> list[list[str]]:
        """The beams of the next round."""
        self.beams = [[*beam, self._step()] for beam in self.beams]
        return self.beams

    def keep(self, scores: Sequence[float]) -> None:
        """Ends a round."""
        ranked = sorted(range(len(scores)), key=lambda i: -scores[i])
        best = [self.beams[i] for i in ranked[: max(1, self._shape.beams // 4)]]
        self.beams = [best[i % len(best)] for i in range(self._shape.beams)]

    def _step(self) -> str:
        words = self._draw.choices(PHRASE.split(), k=self._shape.words - 3)
        a, b = self._draw.randrange(100), self._draw.randrange(100)
        return f"{' '.join(words)} {a} + {b} = {a + b}."


async def run(prm: FamilyPRM, search: Search, rounds: int, *, one_by_one: bool = False) -> None:
    """Runs a search to its end."""
    for _ in range(rounds):
        beams = search.grow()
        calls = [[beam] for beam in beams] if one_by_one else [beams]
        results = [result for call in calls for result in await prm.score(search.question, call)]
        search.keep([aggregate(result.scores, prm.aggregation) for result in results])


@dataclass(frozen=True, slots=True)
class Saved:
    """The tokens of one search."""

    full: int
    incremental: int
    apart: float
    """The largest difference between a step's scores read in full and with kept states, over the last round."""


async def saved(incremental: FamilyPRM, full: FamilyPRM, shape: Shape, seed: int, checked: int) -> Saved:
    """Runs one search with kept states, and adds up what reading each round in full would compute.

    Args:
        incremental: keeps states.
        full: does not.
        shape: of the search.
        seed: of its steps.
        checked: beams of the last round that are read in full too.
    """
    search, read = Search(shape, 48, seed), 0
    before = _computed(incremental)
    beams: list[list[str]] = []
    for _ in range(shape.rounds):
        beams = search.grow()
        distinct = {layout for beam in beams for layout in incremental.family.layouts(search.question, beam)}
        read += sum(len(layout.token_ids) for layout in distinct)
        results = await incremental.score(search.question, beams)
        search.keep([aggregate(result.scores, incremental.aggregation) for result in results])
    used = _computed(incremental) - before
    got = await incremental.score(search.question, beams[:checked])
    expected = await full.score(search.question, beams[:checked])
    pairs = [pair for a, b in zip(got, expected, strict=True) for pair in zip(a.scores, b.scores, strict=True)]
    return Saved(read, used, max((abs(a - b) for a, b in pairs), default=0.0))


async def rate(prm: FamilyPRM, searches: Sequence[Search], shape: Shape, *, one_by_one: bool = False) -> float:
    """Steps scored per second by searches that run at once, or one by one."""
    began = time.perf_counter()
    if one_by_one:
        for search in searches:
            await run(prm, search, shape.rounds, one_by_one=True)
    else:
        async with asyncio.TaskGroup() as group:
            for search in searches:
                group.create_task(run(prm, search, shape.rounds))
    return len(searches) * shape.steps / (time.perf_counter() - began)


async def rates(
    incremental: FamilyPRM, full: FamilyPRM, shape: Shape, levels: Sequence[int], rounds: int, seed: int
) -> list[str]:
    """The rows of the second table."""
    numbers = itertools.count(1000)

    def fresh(n: int) -> list[Search]:
        return [Search(shape, number, seed) for number in itertools.islice(numbers, n)]

    names = ["1, one by one", *map(str, levels)]
    baseline, ours = list[float](), {name: list[float]() for name in names}
    # A first round that does not count.
    for _ in range(rounds + 1):
        baseline.append(await rate(full, fresh(1), shape, one_by_one=True))
        ours[names[0]].append(await rate(incremental, fresh(1), shape, one_by_one=True))
        for level in levels:
            ours[str(level)].append(await rate(incremental, fresh(level), shape))
    return [row(name, rates[1:], baseline[1:]) for name, rates in ours.items()]


def row(name: str, ours: Sequence[float], baseline: Sequence[float]) -> str:
    """A row: both medians, and their ratio over rounds with its interval."""
    ratios = [a / b for a, b in zip(ours, baseline, strict=True)]
    low, high = interval(ratios)
    mine, other = statistics.median(ours), statistics.median(baseline)
    return f"| {name} | {mine:.1f} | {other:.1f} | {statistics.median(ratios):.2f} | {low:.2f} to {high:.2f} |"


@asynccontextmanager
async def _started(path: str, **options: Any) -> AsyncIterator[FamilyPRM]:
    prm = load_prm(path, family=FAMILY, **options)
    await prm.backend.start()
    try:
        yield prm
    finally:
        await prm.backend.close()


def _computed(prm: FamilyPRM) -> int:
    if not isinstance(prm.backend, TransformersBackend):
        raise TypeError("only the backend in this process says what it computed")
    return prm.backend.computed


async def measure(path: str, shapes: tuple[Shape, Shape], levels: Sequence[int], rounds: int, seed: int) -> list[str]:
    """Both tables."""
    whole, short = shapes
    async with _started(path) as incremental, _started(path, cache_bytes=0) as full:
        cost = await saved(incremental, full, whole, seed, checked=4)
        tokens = [
            f"## Tokens computed, {whole.beams} beams x {whole.rounds} steps of about {whole.words} words",
            "",
            "| in full | with kept states | times fewer | largest difference of a score |",
            "|---|---|---|---|",
            f"| {cost.full} | {cost.incremental} | {cost.full / cost.incremental:.1f} | {cost.apart:.1e} |",
        ]
        print("\n".join(tokens), flush=True)
        speed = [
            "",
            f"## Steps scored per second, searches of {short.beams} beams x {short.rounds} steps",
            "",
            "| searches at once, states kept | steps/s | one by one in full, steps/s | median ratio | 95 % interval |",
            "|---|---|---|---|---|",
            *await rates(incremental, full, short, levels, rounds, seed),
        ]
        print("\n".join(speed), flush=True)
    return [*tokens, *speed]


def device() -> str:
    """What the backend runs on."""
    import torch  # noqa: PLC0415

    return f"{torch.cuda.get_device_name()}, bfloat16" if torch.cuda.is_available() else "no GPU, float32"


def main(
    model: Annotated[
        str, typer.Option(help="A model of `tts-server models list`, or a directory.")
    ] = "smollm2-135m-instruct",
    rounds: Annotated[int, typer.Option(help="Rounds of the second table that count.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the steps.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints both tables."""
    path = model if Path(model).is_dir() else pulled(model)
    lines = asyncio.run(measure(path, (WHOLE, SHORT), SEARCHES, rounds, seed))
    if out:
        command = shlex.join(["python", "-m", "bench.studies.prm", *sys.argv[1:]])
        note = f"{machine()}; {device()}; {versions('tts-server', 'torch', 'transformers')}; seed {seed}; "
        note += f"{rounds} rounds; {Path(model).name} as {FAMILY}."
        out.write_text("\n".join(["# Reward models in process", "", f"    {command}", "", note, "", *lines, ""]))


if __name__ == "__main__":
    typer.run(main)
