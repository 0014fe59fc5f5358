import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from searching import TASK, Search, search, world

import strategies
from strategies.core.account import Budget
from strategies.core.contracts import Chunk, Progress, Prompt, Refused, Sampling, Task, TokenLogprob
from tts_server.engines.fake import FakeEngine


class Sure(FakeEngine):
    """Says the texts in turn, and is as sure of each token as the last number `cN` of its text says."""

    def __init__(self, texts: Iterator[str], **options: Any) -> None:
        super().__init__(lambda request: next(texts), **options)
        self.calls: list[tuple[int, int | None]] = []
        """The samples and the logprobs that each call asked for."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        self.calls.append((n, sampling.logprobs))
        now = [1.0] * n
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                if said := re.findall(r"c(\d+)", chunk.text):
                    now[chunk.index] = float(said[-1])
                rivals = [TokenLogprob("x", -now[chunk.index])] * (sampling.logprobs or 0)
                yield replace(chunk, logprobs=tuple(replace(token, top=tuple(rivals)) for token in chunk.logprobs))


def thought(answer: int | None, *confidences: int) -> str:
    return " ".join([*(f"c{c}" for c in confidences), "so" if answer is None else rf"\boxed{{{answer}}}"])


def run(*texts: str, task: Task = TASK, budget: Budget | None = None, **options: Any) -> tuple[Search, Sure]:
    engine = Sure(iter(texts))
    options = {"n": len(texts), **options}
    done = asyncio.run(search(strategies.get("confidence"), engine, task=task, budget=budget, **options))
    assert done.account.usage.completion_tokens == engine.generated
    assert engine.live == 0
    return done, engine


def lines(done: Search) -> list[str]:
    return [event.text for event in done.events if isinstance(event, Progress)]


STEADY = [thought(0, *[c] * 8) for c in (1, 1, 1)] + [thought(1, *[5] * 8)]


def test_a_trace_counts_its_confidence() -> None:
    done, engine = run(*STEADY, keep=1.0)
    assert done.final.best.answer == "1"
    assert [c.weight for c in done.final.candidates] == pytest.approx([1, 1, 1, 5])
    assert done.final.confidence == pytest.approx(5 / 8)
    assert engine.calls == [(4, 20)]


def test_the_least_confident_do_not_vote() -> None:
    texts = [thought(0, *[4] * 8)] * 4 + [thought(1, *[5] * 8)] * 2
    assert run(*texts, keep=1.0)[0].final.best.answer == "0"
    done, _ = run(*texts, keep=0.3)
    assert done.final.best.answer == "1"
    assert [c.weight for c in done.final.candidates] == pytest.approx([0, 0, 0, 0, 5, 5])
    assert done.final.confidence == 1.0


WAVERING, STRAIGHT = thought(1, 9, 9, 9, 9, 1, 1, 9, 9, 9, 9, 9, 9), thought(2, *[5] * 12)


@pytest.mark.parametrize(("measure", "answer"), [("lowest", "2"), ("bottom", "2"), ("mean", "1"), ("tail", "1")])
def test_each_measure_has_its_own_favourite(measure: str, answer: str) -> None:
    done, _ = run(WAVERING, STRAIGHT, measure=measure, window=2, choose="best")
    assert done.final.best.answer == answer
    assert done.final.selector == "best"
    assert done.final.confidence is None


def test_the_mean_logprob_needs_no_rivals() -> None:
    done, engine = run(*STEADY, measure="logprob")
    assert engine.calls == [(4, 0)]
    assert all(0.5 <= c.weight <= 1 for c in done.final.candidates if c.weight)


def test_a_window_is_a_part_of_the_median_trace() -> None:
    texts = [thought(0, *[5] * k) for k in (6, 14, 200)]
    assert any("over 4 tokens" in line for line in lines(run(*texts)[0]))
    assert any("over 2 tokens" in line for line in lines(run(*texts, window=2)[0]))
    assert any("over 8 tokens" in line for line in lines(run(*texts, window_share=0.5)[0]))


def test_without_answers_the_surest_text_is_returned() -> None:
    done, _ = run(thought(None, 2, 2), thought(None, 7, 7), thought(None, 3, 3))
    assert "c7" in done.final.best.text
    assert done.final.confidence is None


WARM = [thought(0, *[c] * 8) for c in (1, 2, 3, 4)]


def online(*texts: str, **options: Any) -> tuple[Search, Sure]:
    settings: dict[str, Any] = {"mode": "online", "warmup": 4, "keep": 0.5, "parallel": 1, "consensus": 1.0}
    return run(*WARM, *texts, **{**settings, **options})


def test_a_trace_below_the_bar_is_given_up_alone() -> None:
    falling, rising = thought(1, 9, 9, 9, 1, 1, *[9] * 90), thought(1, *[9] * 90)
    split = [thought(i % 2, *[c] * 8) for i, c in enumerate((1, 2, 3, 4))]
    done, engine = run(
        *split, falling, rising, mode="online", warmup=4, keep=0.5, parallel=2, window=2, window_share=1.0
    )
    assert engine.calls == [(4, 20), (1, 20), (1, 20)]
    assert [c.answer for c in done.final.candidates] == ["0", "1", "0", "1", "1"]
    assert [c.weight for c in done.final.candidates] == pytest.approx([0, 0, 3, 4, 9])
    assert "sample 5 is given up after 5 tokens: its confidence fell below 2.5" in lines(done)
    assert done.account.usage.samples == 6
    assert done.final.best.text == rising


def test_a_warm_up_that_agrees_is_enough() -> None:
    done, _ = online(*[thought(1, *[9] * 8)] * 5)
    assert done.account.usage.samples == 4
    assert [c.weight for c in done.final.candidates] == pytest.approx([0, 0, 3, 4])
    assert done.final.best.answer == "0"


SPLIT = [thought(i % 2, *[4] * 8) for i in range(4)]


@pytest.mark.parametrize(("consensus", "samples"), [(0.5, 4), (0.6, 5), (0.75, 8), (0.8, 10), (0.95, 12)])
def test_drawing_stops_at_the_consensus(consensus: float, samples: int) -> None:
    texts = [*SPLIT, *[thought(1, *[4] * 8)] * 8]
    done, _ = run(*texts, mode="online", warmup=4, keep=0.9, parallel=1, consensus=consensus)
    assert len(done.final.candidates) == done.account.usage.samples == samples
    assert done.account.stop_reason is None


def test_the_consensus_sees_what_began_first() -> None:
    slow, quick = thought(1, *[4] * 80), thought(0, *[4] * 8)
    texts = [*SPLIT, slow, slow, slow, *[quick] * 5]
    done, _ = run(*texts, mode="online", warmup=4, keep=0.9, parallel=8, consensus=0.7)
    assert done.final.best.answer == "1"
    assert len(done.final.candidates) == 7
    assert done.account.usage.samples == 12


def test_a_failed_trace_has_no_vote() -> None:
    class Losing(Sure):
        async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
            if len(self.calls) == 1:
                self.calls.append((n, None))
                raise ConnectionError("lost")
            async with aclosing(super().generate(prompt, sampling, n)) as chunks:
                async for chunk in chunks:
                    yield chunk

    engine = Losing(iter([*SPLIT, *[thought(1, *[4] * 8)] * 2]))
    done = asyncio.run(search(strategies.get("confidence"), engine, n=7, mode="online", warmup=4, parallel=1))
    assert [c.sample.finish_reason for c in done.final.candidates] == ["eos"] * 4 + ["error"] + ["eos"] * 2
    assert done.final.candidates[4].weight == 0
    assert done.final.best.answer == "1"


def test_a_budget_ends_the_online_search() -> None:
    done, _ = run(*SPLIT, *SPLIT, mode="online", warmup=4, parallel=3, budget=Budget(max_samples=6))
    assert len(done.final.candidates) == 6
    assert done.account.stop_reason == "max_samples"


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(("asked", "tops"), [(None, set()), (0, {0}), (2, {2})])
def test_only_the_logprobs_that_were_asked_for_come_back(mode: str, asked: int | None, tops: set[int]) -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, logprobs=asked))
    done, engine = run(*SPLIT, *SPLIT, task=task, mode=mode, warmup=4)
    assert {logprobs for _, logprobs in engine.calls} == {20}
    assert len(done.final.candidates) == 8
    assert {len(t.top) for c in done.final.candidates for t in c.sample.logprobs} == tops


def test_the_likeliest_tokens_that_are_asked_for_can_be_fewer() -> None:
    assert run(*STEADY, top_logprobs=5)[1].calls == [(4, 5)]


class Mute(FakeEngine):
    """Tells no logprobs, and does not say so."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(prompt, replace(sampling, logprobs=None), n)) as chunks:
            async for chunk in chunks:
                yield chunk


def test_an_engine_that_tells_no_logprobs_is_of_no_use() -> None:
    with pytest.raises(Refused, match="tells no logprobs"):
        asyncio.run(search(strategies.get("confidence"), Mute(world()), n=2))


def test_online_needs_its_own_measure() -> None:
    with pytest.raises(Refused, match="lowest") as caught:
        online(measure="mean")
    assert caught.value.param == "tts.measure"


def test_a_warm_up_draws_as_many_traces_as_choices() -> None:
    done, engine = online(*WARM, task=replace(TASK, choices=6))
    assert engine.calls[0] == (6, 20)
    assert len(done.final.ranking) >= 6
    with pytest.raises(Refused) as caught:
        online(*WARM, task=replace(TASK, choices=9))
    assert caught.value.param == "n"


def test_cancelling_an_online_search_leaves_nothing_behind() -> None:
    async def main(turns: int) -> bool:
        engine = Sure(iter([*SPLIT, thought(1, 9, 1, 1, 1, 1), *SPLIT]), chunk_tokens=4)
        run = search(strategies.get("confidence"), engine, n=9, mode="online", warmup=4, parallel=2)
        task = asyncio.create_task(run)
        for _ in range(turns):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert engine.live == 0
        return done

    with asyncio.Runner() as runner:
        turns = 0
        while not runner.run(main(turns)):
            turns += 1
    assert turns > 3


def test_a_deadline_ends_an_online_search() -> None:
    async def main() -> Search:
        engine = Sure(iter([*SPLIT, *["c4 " * 900] * 5]), token_s=0.005)
        entry, budget = strategies.get("confidence"), Budget(deadline_s=0.3)
        return await search(entry, engine, budget=budget, n=9, mode="online", warmup=4, parallel=2)

    done = asyncio.run(main())
    assert [c.sample.finish_reason for c in done.final.candidates] == ["eos"] * 4 + ["budget"] * 2
    assert done.account.stop_reason == "deadline"
    assert done.final.best.sample.finished


def test_the_default_measure_is_the_tail_offline_and_the_lowest_group_online() -> None:
    done, _ = run(WAVERING, STRAIGHT, window=2, choose="best")
    assert done.final.best.answer == "1"
    assert online()[0].final == online(measure="lowest")[0].final
