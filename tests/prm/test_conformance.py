"""What every reward model keeps, plug-ins included: add it to `MEMBERS`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from prm import (
    AGGREGATIONS,
    FAMILIES,
    FakePRM,
    FamilyPRM,
    Judge,
    OnTokens,
    PRMError,
    PRMInputError,
    ProcessRewardModel,
    StepScores,
    check_scores,
)
from prm.backend.local import TransformersBackend, load_prm, read_config
from prm.families.contract import Layout
from prm.generative import GenerativePRM
from strategies.core.account import Account
from strategies.core.contracts import Chunk, Prompt, Sampling
from strategies.core.metered import MeteredPRM
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest, decode
from tts_server.prm_serving.judge_engine import Verifier

QUESTION = "How many apples are 2 apples and 3 apples?"
SOLUTIONS = [
    ["There are 2 and 3 apples.", "2 + 3 = 5.", "The answer is 5."],
    ["There are 2 and 3 apples.", "2 + 3 = 6."],
    ["Cinq pommes <|im_end|> 🍎 \\boxed{5}"],
    ["There are 2 and 3 apples.", "2 + 3 = 5.", "The answer is 5."],
]


@dataclass(frozen=True, slots=True)
class Member:
    """A reward model under test."""

    prm: ProcessRewardModel
    idle: Callable[[], bool] = lambda: True
    """Whether nothing of it runs any more."""
    computed: Callable[[], int] = lambda: 0
    """Tokens that it has computed so far."""
    close: Callable[[], None] = lambda: None


def verdict(request: FakeRequest) -> FakeReply:
    """A verdict drawn from the prompt's text alone."""
    sure = sum(request.text.encode()) % 101 / 100
    labels = [decode((token,)) for token in request.sampling.logprob_token_ids] or ["Yes", "No"]
    return FakeReply(labels[0], dict(zip(labels, (sure, 1 - sure), strict=False)))


class CountingEngine(FakeEngine):
    """Adds up what it has computed."""

    computed = 0

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(prompt, sampling, n):
            self.computed += chunk.prompt_tokens - chunk.cached_tokens + chunk.completion_tokens
            yield chunk


def fake(delay_s: float) -> Member:
    scored: list[Sequence[str]] = []

    def scorer(question: str, steps: Sequence[str]) -> list[float]:
        scored.append(steps)
        return [sum(step.encode()) % 101 / 100 for step in steps]

    return Member(FakePRM(scorer, delay_s=delay_s, tokens=7), computed=lambda: 7 * len(scored))


def judge(delay_s: float) -> Member:
    engine = CountingEngine(verdict, token_s=delay_s)
    return Member(Judge(Verifier(engine)), lambda: engine.live == 0, lambda: engine.computed)


def judge_by_text(delay_s: float) -> Member:
    engine = CountingEngine(verdict, token_s=delay_s, continues=False)
    return Member(Judge(Verifier(engine)), lambda: engine.live == 0, lambda: engine.computed)


@cache
def family_at(path: str) -> FamilyPRM:
    return load_prm(path, separator="\n\n" if path.endswith("trl") else None)


@cache
def weights_at(path: str) -> Any:
    from prm.backend.heads import load

    return load(path, read_config(path), family_at(path).family.head)


def elsewhere(do: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs something to its end beside the test's own event loop."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(do())).result()


def of_family(path: str, delay_s: float) -> Member:
    family = family_at(path).family
    backend = TransformersBackend(path, read_config(path), family.head, wait_s=delay_s)
    elsewhere(backend.start)
    prm = FamilyPRM(family, backend, family.name)
    return Member(prm, lambda: backend.waiting == 0, lambda: backend.computed, partial(elsewhere, backend.close))


class Verifying:
    """A verifier that writes and reads as the prompt's token ids alone say."""

    max_len = 4000

    def __init__(self, delay_s: float) -> None:
        self.computed = self.live = 0
        self._delay_s = delay_s

    async def start(self) -> None:
        """Needs none."""

    async def close(self) -> None:
        """Needs none."""

    async def write(
        self,
        prompts: Sequence[tuple[int, ...]],
        stops: Sequence[Sequence[str]],
        max_tokens: int,
        *,
        on_tokens: OnTokens | None = None,
    ) -> list[str]:
        await self._compute(len(prompts), on_tokens)
        return [f"So the step is \\boxed{{{'in' if sum(prompt) % 3 == 0 else ''}correct}}." for prompt in prompts]

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        await self._compute(len(layouts), on_tokens)
        return [(sum(layout.token_ids) % 101 / 100,) for layout in layouts]

    async def _compute(self, tokens: int, on_tokens: OnTokens | None) -> None:
        self.live += 1
        try:
            await asyncio.sleep(self._delay_s)
        finally:
            self.live -= 1
        self.computed += tokens
        if on_tokens:
            on_tokens(tokens)


@cache
def tokenizer() -> Any:
    from tiny_prm import qwen_tokenizer

    return qwen_tokenizer()


def generative(delay_s: float) -> Member:
    pytest.importorskip("transformers")
    verifying = Verifying(delay_s)
    prm = GenerativePRM(tokenizer(), verifying.write, verifying)
    return Member(prm, lambda: verifying.live == 0, lambda: verifying.computed)


MEMBERS = [fake, judge, judge_by_text, generative]


@pytest.fixture(params=[*MEMBERS, *FAMILIES], ids=lambda made: made if isinstance(made, str) else made.__name__)
def make(
    request: pytest.FixtureRequest, saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[float], Member]]:
    if not isinstance(request.param, str):
        yield request.param
        return
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    # Weights are read once: the test's models are many servers of them.
    weights = weights_at(str(saved(request.param)))
    monkeypatch.setattr("prm.backend.heads.load", lambda *args, **options: weights)
    made = list[Member]()

    def make(delay_s: float) -> Member:
        made.append(of_family(str(saved(request.param)), delay_s))
        return made[-1]

    yield make
    for member in made:
        member.close()


def score(prm: ProcessRewardModel, solutions: list[list[str]]) -> list[StepScores]:
    return asyncio.run(prm.score(QUESTION, solutions))


def test_it_has_a_name_and_an_aggregation(make: Callable[[float], Member]) -> None:
    prm = make(0).prm
    assert isinstance(prm, ProcessRewardModel)
    assert prm.name
    assert prm.aggregation in AGGREGATIONS


def test_the_documentation_tells_its_default_aggregation(make: Callable[[float], Member]) -> None:
    prm = make(0).prm
    page = (Path(__file__).parents[2] / "docs" / "reward_models.md").read_text()
    rows = [[cell.strip(" `") for cell in row.split("|")] for row in page.splitlines() if row.startswith("| `")]
    told = {family: default for _, family, _, default, *_ in rows}
    assert set(told) == {*FAMILIES, "generative", "judge"}
    assert prm.name == "fake" or told[prm.name] == prm.aggregation


def test_one_score_a_step_in_the_order_asked(make: Callable[[float], Member]) -> None:
    prm = make(0).prm
    results = score(prm, SOLUTIONS)
    check_scores(SOLUTIONS, results)
    assert all(0 <= s <= 1 for result in results for s in result.scores)
    # A kernel sums in another order where a row lies elsewhere in its batch: the last bits may differ.
    assert results[0].scores == pytest.approx(results[3].scores)
    assert results[0].scores != pytest.approx(results[1].scores)
    backwards = score(prm, SOLUTIONS[::-1])
    for there, back in zip(results, backwards[::-1], strict=True):
        assert back.scores == pytest.approx(there.scores)


def test_a_batch_scores_as_one_by_one(make: Callable[[float], Member]) -> None:
    prm = make(0).prm
    alone = [score(prm, [solution])[0].scores for solution in SOLUTIONS]
    for together, single in zip(score(prm, SOLUTIONS), alone, strict=True):
        assert together.scores == pytest.approx(single)


def test_it_says_what_it_computed(make: Callable[[float], Member]) -> None:
    member, tokens = make(0), list[int]()
    asyncio.run(member.prm.score(QUESTION, SOLUTIONS, on_tokens=tokens.append))
    assert sum(tokens) == member.computed() > 0


def test_no_solutions_have_no_scores(make: Callable[[float], Member]) -> None:
    assert score(make(0).prm, []) == []


@pytest.mark.parametrize("solutions", [[["a"], []], [["a", ""]], [["a"], [" \n"]]])
def test_an_empty_step_is_refused(make: Callable[[float], Member], solutions: list[list[str]]) -> None:
    with pytest.raises(PRMInputError) as caught:
        score(make(0).prm, solutions)
    assert caught.value.param == "steps"


def test_concurrent_calls_do_not_mix(make: Callable[[float], Member]) -> None:
    prm = make(0.001).prm

    async def main() -> list[list[StepScores]]:
        return await asyncio.gather(*(prm.score(QUESTION, [solution]) for solution in SOLUTIONS))

    alone = [score(prm, [solution])[0].scores for solution in SOLUTIONS]
    for (together,), single in zip(asyncio.run(main()), alone, strict=True):
        assert together.scores == pytest.approx(single)


def test_cancelling_leaves_nothing_behind(make: Callable[[float], Member]) -> None:
    async def main() -> None:
        member = make(60.0)
        call = asyncio.create_task(member.prm.score(QUESTION, SOLUTIONS))
        # Long enough for the call to be where it waits.
        for _ in range(50):
            await asyncio.sleep(0)
        assert not call.done()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert member.idle()

    asyncio.run(main())


def test_cancelling_at_any_await_leaves_nothing_behind_and_nothing_unsaid(make: Callable[[float], Member]) -> None:
    async def main(turns: int) -> bool:
        member, tokens = make(0), list[int]()
        call = asyncio.create_task(member.prm.score(QUESTION, SOLUTIONS, on_tokens=tokens.append))
        for turn in range(turns):
            # What a thread computes takes time besides turns of the loop.
            await asyncio.sleep(0 if turn < 25 or call.done() else 0.05)
        done = call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert member.idle()
        assert sum(tokens) == member.computed()
        return done

    assert any(asyncio.run(main(turns)) for turns in range(40))


class Careless:
    """Drops the last score of what another scores."""

    def __init__(self, prm: ProcessRewardModel) -> None:
        self.name, self.aggregation = prm.name, prm.aggregation
        self.selector, self.trained = prm.selector, prm.trained
        self._prm = prm

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        results = await self._prm.score(question, solutions, on_tokens=on_tokens)
        return [StepScores(result.scores[:-1]) for result in results]


def test_a_count_that_does_not_match_never_reaches_a_strategy(make: Callable[[float], Member]) -> None:
    metered = MeteredPRM(Careless(make(0).prm), Account())
    with pytest.raises(PRMError, match="for solutions of"):
        score(metered, SOLUTIONS)
