"""What was drawn is served once, in place of what a search would have drawn, and costs nothing more."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from searching import begin

import strategies
from bench.simulation.toy_prm import ToyPRM
from bench.simulation.toy_world import ToyEngine, World
from prm import FakePRM
from strategies.allocation.replay import ReplayEngine, ReplayPRM
from strategies.core.account import Account, Budget, BudgetSpent
from strategies.core.contracts import Chunk, Final, Prompt, Sample, Sampling, TokenIds, TokenLogprob
from strategies.core.metered import MeteredPRM
from tts_server.engines.fake import FakeEngine

WORLD = World(seed=3, depth=4, p_step=0.6)
TASK = WORLD.task(5)
DRAWN = replace(TASK.sampling, temperature=0.8)
STEP = replace(DRAWN, seed=99, stop=("\n\n",), include_stop=True)


class Counting(ToyEngine):
    """Remembers what it was asked."""

    def __init__(self, world: World = WORLD) -> None:
        super().__init__(world)
        self.calls: list[tuple[Prompt, Sampling, int]] = []
        self.generated = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.calls.append((prompt, sampling, n))
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                self.generated += chunk.completion_tokens
                yield chunk


async def drawn(engine: Any, prompt: Prompt, sampling: Sampling, n: int) -> list[Sample]:
    samples: dict[int, Sample] = {}
    async with aclosing(engine.generate(prompt, sampling, n)) as chunks:
        async for chunk in chunks:
            samples.setdefault(chunk.index, Sample()).chunks.append(chunk)
    return [samples[index] for index in sorted(samples)]


def texts(samples: list[Sample]) -> list[str]:
    return [sample.text for sample in samples]


@dataclass
class Pilot:
    """Four samples, and an engine that serves them."""

    engine: Any = field(default_factory=Counting)
    sampling: Sampling = DRAWN
    n: int = 4
    samples: list[Sample] = field(default_factory=list)
    replay: ReplayEngine = field(init=False)

    async def begin(self) -> "Pilot":
        self.replay = ReplayEngine(self.engine, TASK.prompt, self.sampling)
        self.samples = await drawn(self.engine, TASK.prompt, self.sampling, self.n)
        self.replay.keep(self.samples)
        if isinstance(self.engine, Counting):
            self.engine.calls.clear()
        return self


def test_whole_samples_are_served_first_and_the_rest_is_drawn_with_another_seed() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        got = await drawn(pilot.replay, TASK.prompt, DRAWN, 6)
        assert texts(got[:4]) == texts(pilot.samples)
        assert [sample.completion_tokens for sample in got[:4]] == [s.completion_tokens for s in pilot.samples]
        ((_, sampling, n),) = pilot.engine.calls
        assert n == 2
        assert sampling.seed != DRAWN.seed
        assert not set(texts(got[4:])) & set(texts(pilot.samples))

    asyncio.run(main())


def test_each_is_served_once() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        first = await drawn(pilot.replay, TASK.prompt, DRAWN, 3)
        second = await drawn(pilot.replay, TASK.prompt, replace(DRAWN, seed=7), 2)
        assert texts([*first, second[0]]) == texts(pilot.samples)
        assert [n for _, _, n in pilot.engine.calls] == [1]

    asyncio.run(main())


@pytest.mark.parametrize(
    "sampling",
    [
        replace(DRAWN, temperature=0.7),
        replace(DRAWN, top_p=0.9),
        replace(DRAWN, max_tokens=5),
        replace(DRAWN, min_tokens=5),
        replace(DRAWN, stop=("x",)),
        replace(DRAWN, logprobs=2),
    ],
    ids=str,
)
def test_what_is_drawn_otherwise_is_not_served(sampling: Sampling) -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        await drawn(pilot.replay, TASK.prompt, sampling, 2)
        assert [n for _, _, n in pilot.engine.calls] == [2]

    asyncio.run(main())


def test_another_prompt_is_not_served_and_keeps_its_seed() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        other = Prompt(({"role": "user", "content": "Question 9?"},))
        await drawn(pilot.replay, other, DRAWN, 2)
        assert pilot.engine.calls == [(other, DRAWN, 2)]

    asyncio.run(main())


def test_failed_and_cut_samples_are_not_served() -> None:
    replay = ReplayEngine(Counting(), TASK.prompt, DRAWN)
    replay.keep([Sample([Chunk(0, "x", finish_reason=reason)]) for reason in ("error", "budget", "eos", "length")])
    assert replay.kept == 2


def test_logprobs_that_nobody_asks_for_are_left_out() -> None:
    async def main() -> None:
        pilot = await Pilot(sampling=replace(DRAWN, logprobs=2)).begin()
        plain, top = await drawn(pilot.replay, TASK.prompt, DRAWN, 2)
        assert plain.logprobs == top.logprobs == ()
        (told,) = await drawn(pilot.replay, TASK.prompt, replace(DRAWN, logprobs=0), 1)
        assert {type(token) for token in told.logprobs} == {TokenLogprob}
        assert {token.top for token in told.logprobs} == {()}
        assert pilot.engine.calls == []

    asyncio.run(main())


async def step(pilot: Pilot, ids: TokenIds, n: int, sampling: Sampling = STEP) -> list[Sample]:
    return await drawn(pilot.replay, replace(TASK.prompt, token_ids=ids), sampling, n)


def test_steps_are_cut_from_the_samples_and_go_on_as_those_did() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        root = await pilot.replay.encode(TASK.prompt)
        steps = await step(pilot, root, 4)
        assert [s.text for s in steps] == [s.text.partition("\n\n")[0] + "\n\n" for s in pilot.samples]
        assert {(s.finish_reason, s.chunks[-1].stop) for s in steps} == {("stop", "\n\n")}
        ids, said = root + steps[0].token_ids, steps[0].text
        for _ in range(3):
            (more,) = await step(pilot, ids, 1)
            ids, said = ids + more.token_ids, said + more.text
        assert said == pilot.samples[0].text
        assert more.finish_reason == "eos"
        assert pilot.engine.calls == []
        assert ids == root + pilot.samples[0].token_ids

    asyncio.run(main())


def test_a_beginning_is_continued_once_and_then_by_the_engine() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        root = await pilot.replay.encode(TASK.prompt)
        (first,) = await step(pilot, root, 1)
        await step(pilot, root + first.token_ids, 3)
        await step(pilot, root + first.token_ids, 2)
        assert [n for _, _, n in pilot.engine.calls] == [2, 2]
        # A seed of the search's own is left alone behind the prompt.
        assert {sampling.seed for _, sampling, _ in pilot.engine.calls} == {99}

    asyncio.run(main())


def test_a_limit_of_tokens_cuts_where_a_chunk_ends_or_not_at_all() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        root = await pilot.replay.encode(TASK.prompt)
        length = len((await step(pilot, root, 1))[0].token_ids)
        pilot = await Pilot().begin()
        root = await pilot.replay.encode(TASK.prompt)
        assert (await step(pilot, root, 1, replace(STEP, max_tokens=length)))[0].finish_reason == "stop"
        await step(pilot, root, 3, replace(STEP, max_tokens=3))
        assert [n for _, _, n in pilot.engine.calls] == [3]

    asyncio.run(main())


def fake_chunks(*pieces: tuple[str, int], end: str = "eos") -> Sample:
    """A sample of chunks with a text and so many tokens."""
    chunks, token = [], 1000
    for text, tokens in pieces:
        chunks.append(Chunk(0, text, tuple(range(token, token + tokens)), tokens))
        token += tokens
    chunks.append(Chunk(0, "", (), 1, finish_reason=end))  # type: ignore[arg-type]
    return Sample(chunks)


@pytest.mark.parametrize(
    ("sample", "cut"),
    [
        (fake_chunks(("a.\n\n", 1), ("b", 1)), "a.\n\n"),
        (fake_chunks(("a.\n\n", 3), ("b", 1)), "a.\n\n"),
        # White space behind the separator is lost with its token, as an engine loses it.
        (fake_chunks(("a", 1), (".\n\n\n", 1), ("b", 1)), "a.\n\n"),
        # A token that says more than the separator may not lose it.
        (fake_chunks(("a", 1), ("\n\nb", 1)), None),
        # Which of the tokens ends the step is not known.
        (fake_chunks(("a\n\n\n", 2), ("b", 1)), None),
        (fake_chunks(("a", 0), ("\n\n", 1)), "a\n\n"),
        (fake_chunks(("whole", 1)), "whole"),
    ],
    ids=str,
)
def test_a_step_ends_with_a_token(sample: Sample, cut: str | None) -> None:
    async def main() -> None:
        engine = Counting()
        replay = ReplayEngine(engine, TASK.prompt, DRAWN)
        replay.keep([sample])
        root = await replay.encode(TASK.prompt)
        (got,) = await drawn(replay, replace(TASK.prompt, token_ids=root), STEP, 1)
        assert (got.text == cut) == (cut is not None)
        assert len(engine.calls) == (cut is None)

    asyncio.run(main())


def test_a_stop_string_of_the_request_s_own_is_told_with_the_step() -> None:
    async def main() -> None:
        own = replace(DRAWN, stop=("END",))
        engine = Counting()
        replay = ReplayEngine(engine, TASK.prompt, own)
        replay.keep([Sample([Chunk(0, "a", (1,), 1), Chunk(0, " ", (2, 3), 2, finish_reason="stop", stop="END")])])
        root = await replay.encode(TASK.prompt)
        search = replace(STEP, stop=("\n\n", "END"))
        (got,) = await drawn(replay, replace(TASK.prompt, token_ids=root), search, 1)
        assert (got.text, got.chunks[-1].stop, engine.calls) == ("a END", "END", [])

    asyncio.run(main())


def test_token_ids_that_are_not_told_are_served_whole_only() -> None:
    async def main() -> None:
        engine = FakeEngine(continues=False)
        pilot = await Pilot(engine).begin()
        bare = [Sample([replace(c, token_ids=()) for c in sample.chunks]) for sample in pilot.samples]
        replay = ReplayEngine(engine, TASK.prompt, DRAWN)
        replay.keep(bare)
        before = engine.generated
        assert texts(await drawn(replay, TASK.prompt, DRAWN, 4)) == texts(bare)
        assert engine.generated == before
        await drawn(replay, TASK.prompt, STEP, 1)
        assert engine.generated > before

    asyncio.run(main())


class Spent(Counting):
    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        raise BudgetSpent("max_tokens")
        yield  # an async generator


def test_with_a_spent_budget_what_is_there_is_served() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        replay = ReplayEngine(Spent(), TASK.prompt, DRAWN)
        replay.keep(pilot.samples)
        assert len(await drawn(replay, TASK.prompt, DRAWN, 6)) == 4
        with pytest.raises(BudgetSpent):
            await drawn(replay, TASK.prompt, DRAWN, 1)

    asyncio.run(main())


async def beams(engine: Any, account: Account) -> Final:
    entry = strategies.get("beam_search")
    async with aclosing(begin(entry, engine, ToyPRM(0.8), task=replace(TASK, sampling=DRAWN), account=account)) as run:
        *_, final = [event async for event in run]
    assert isinstance(final, Final)
    return final


def test_a_beam_search_begins_with_the_samples_and_generates_less() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        roots = {sample.text.partition("\n\n")[0] for sample in pilot.samples}
        before = pilot.engine.generated
        final = await beams(pilot.replay, Account())
        after = pilot.engine.generated - before
        prompt, _, n = pilot.engine.calls[0]
        assert n == 12
        assert prompt.token_ids == await pilot.engine.encode(TASK.prompt)
        alone = Counting()
        assert (await beams(alone, Account())).best.sample.finished
        assert alone.calls[0][2] == 16
        assert after < alone.generated
        begun = {candidate.text.partition("\n\n")[0] for candidate in final.candidates}
        assert begun & roots

    asyncio.run(main())


def test_a_part_of_a_sample_has_the_sample_s_number() -> None:
    async def main() -> None:
        pilot = await Pilot().begin()
        numbered = [Sample([replace(s.chunks[0], number=7 + i), *s.chunks[1:]]) for i, s in enumerate(pilot.samples)]
        pilot.replay = ReplayEngine(pilot.engine, TASK.prompt, DRAWN)
        pilot.replay.keep(numbered)
        root = await pilot.replay.encode(TASK.prompt)
        (first,) = await step(pilot, root, 1)
        (second,) = await step(pilot, root + first.token_ids, 1)
        assert (first.number, second.number) == (7, 7)

    asyncio.run(main())


def test_what_was_scored_is_not_scored_again() -> None:
    async def main() -> None:
        account = Account(Budget())
        prm = ReplayPRM(MeteredPRM(FakePRM(tokens=5), account))
        first = await prm.score("q", [["a"], ["a", "b"]])
        again = await prm.score("q", [["a", "b"], ["c"], ["a"], ["c"]])
        assert (again[0], again[2]) == (first[1], first[0])
        assert again[1] == again[3]
        assert account.usage.prm_tokens == 15
        await prm.score("another", [["a"]])
        assert (account.usage.prm_tokens, account.usage.prm_calls) == (20, 3)
        await prm.score("q", [["a"], ["c"]])
        assert account.usage.prm_calls == 3

    asyncio.run(main())
