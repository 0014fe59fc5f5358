"""What every strategy keeps, plug-ins included: this runs over whatever is registered, and over one from outside."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import NEVER_S
from pydantic import ValidationError
from searching import TASK, BreakingEngine, CrowdedEngine, LosingEngine, begin, broken, search, withheld, world
from virtual_time import in_virtual_time

import strategies
from prm import FakePRM, OnTokens, PRMError, ProcessRewardModel, StepScores
from prm.base import refuse
from strategies import Entry
from strategies.answers import symbolic
from strategies.core import registry
from strategies.core.account import Account, Budget
from strategies.core.contracts import Event, Final, Message, Prompt, Refused, Task
from strategies.core.deadline import TICK_S
from strategies.core.search_events import watched
from tts_server.config import RequestLimit
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest

PLUGIN = '''
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from strategies import strategy
from strategies.core.contracts import Event, Sample
from strategies.sampling.draw import candidates_of, draw, elect


@strategy("out_of_tree", paper="a test")
async def out_of_tree(
    task, engine, prm, account, *, n: Annotated[int, Field(ge=1, description="Samples to draw.")] = 2
) -> AsyncGenerator[Event, None]:
    """Draws a few samples and votes."""
    samples: list[Sample] = []
    async with aclosing(draw(task, engine, n, samples)) as progress:
        async for line in progress:
            yield line
    yield await elect(candidates_of(samples), "majority", account.seconds_left)
'''

TINY_S = 1e-6
"""What a clock that jumps rounds off."""

NAMES = [*strategies.registry(), "out_of_tree"]


def install(directory: Path) -> None:
    """Puts a distribution with one strategy where Python finds it, as pip would."""
    (directory / "elsewhere.py").write_text(PLUGIN)
    info = directory / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tts_server.strategies]\nout_of_tree = elsewhere\n")


@pytest.fixture(scope="module", autouse=True)
def _plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    directory = tmp_path_factory.mktemp("site")
    install(directory)
    with pytest.MonkeyPatch.context() as patch:
        strategies.registry()
        patch.syspath_prepend(directory)
        patch.setattr(registry, "_entries", dict(registry._entries))
        registry._load.cache_clear()
        strategies.registry()
        yield
    registry._load.cache_clear()


def having(option: str) -> list[str]:
    return [name for name, entry in strategies.registry().items() if option in entry.options.model_fields]


@pytest.fixture(params=NAMES)
def entry(request: pytest.FixtureRequest) -> Entry:
    return strategies.get(request.param)


def few(entry: Entry, **options: Any) -> dict[str, Any]:
    """Four samples, where a strategy lets one say so; of the others, only those that this strategy has."""
    known = entry.options.model_fields
    return {name: value for name, value in {"n": 4, **options}.items() if name in known}


def reward(entry: Entry, prm: ProcessRewardModel | None = None) -> ProcessRewardModel | None:
    return (prm or FakePRM()) if entry.scored else None


def several(entry: Entry) -> Task:
    """A task of which a sample can be lost: a strategy without `n` is asked for two choices."""
    return TASK if "n" in entry.options.model_fields else replace(TASK, choices=2)


def test_it_ends_with_its_only_final(entry: Entry) -> None:
    done = asyncio.run(search(entry, FakeEngine(world()), reward(entry), **few(entry)))
    assert [isinstance(event, Final) for event in done.events] == [False] * (len(done.events) - 1) + [True]
    final = done.final
    assert final.best.text.endswith("}.")
    assert len(set(final.ranking)) == len(final.ranking) <= len(final.candidates)
    assert final.confidence is None or 0 <= final.confidence <= 1


def test_the_same_seed_gives_the_same_answer(entry: Entry) -> None:
    engine = FakeEngine(world())

    async def main(seed: int) -> tuple[Event, ...]:
        task = replace(TASK, sampling=replace(TASK.sampling, seed=seed))
        return (await search(entry, engine, reward(entry), task=task, **few(entry))).events

    first = asyncio.run(main(1))
    assert asyncio.run(main(1)) == first
    assert len({str(asyncio.run(main(seed))) for seed in range(5)}) > 1


def test_it_keeps_nothing_between_requests(entry: Entry) -> None:
    turns: list[Message] = [{"role": "user", "content": f"Question {i}?"} for i in range(2)]
    tasks = [replace(TASK, prompt=Prompt((turn,))) for turn in turns]

    async def apart() -> list[tuple[Event, ...]]:
        return [
            (await search(entry, FakeEngine(world()), reward(entry), task=task, **few(entry))).events for task in tasks
        ]

    async def interleaved() -> list[tuple[Event, ...]]:
        engine, prm = FakeEngine(world()), reward(entry)
        runs = [begin(entry, engine, prm, task=task, **few(entry)) for task in tasks]
        seen: list[list[Event]] = [[] for _ in runs]
        growing = set(range(len(runs)))
        while growing:
            for i in sorted(growing):
                event = await anext(runs[i], None)
                if event is None:
                    growing.discard(i)
                else:
                    seen[i].append(event)
        return [tuple(events) for events in seen]

    assert asyncio.run(interleaved()) == asyncio.run(apart())


class Ledger:
    """A reward model that notes what was spent when it was called."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.seen: list[int] = []
        self._prm = FakePRM(tokens=5)
        self.name, self.aggregation = self._prm.name, self._prm.aggregation
        self.selector, self.trained = self._prm.selector, self._prm.trained

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.seen.append(self.account.usage.prm_tokens)
        return await self._prm.score(question, solutions, on_tokens=on_tokens)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    samples=st.none() | st.integers(0, 6),
    tokens=st.none() | st.integers(0, 120),
    prm_tokens=st.none() | st.integers(0, 40),
    chunk_tokens=st.integers(1, 3),
)
@pytest.mark.parametrize("name", NAMES)
def test_no_budget_is_exceeded_and_every_token_is_counted(
    name: str, samples: int | None, tokens: int | None, prm_tokens: int | None, chunk_tokens: int
) -> None:
    entry = strategies.get(name)
    account = Account(Budget(max_samples=samples, max_tokens=tokens, max_prm_tokens=prm_tokens))
    engine, prm = CrowdedEngine(world(gap=1), chunk_tokens=chunk_tokens), Ledger(account)

    async def main() -> Final:
        options = few(entry, selector="weighted")
        async with aclosing(begin(entry, engine, reward(entry, prm), account=account, **options)) as events:
            *_, final = [event async for event in events]
        assert isinstance(final, Final)
        return final

    final, usage = asyncio.run(main()), account.usage
    assert usage.completion_tokens == engine.generated
    assert engine.live == 0
    if samples is not None:
        assert usage.samples <= samples
    if tokens is not None:
        # A last chunk also has the end of sequence.
        assert usage.completion_tokens <= tokens + engine.peak * (chunk_tokens + 1)
    if prm_tokens is not None:
        assert all(before < prm_tokens for before in prm.seen)
    reached = {
        "max_samples": usage.samples == samples,
        "max_tokens": tokens is not None and usage.completion_tokens >= tokens,
        "max_prm_tokens": prm_tokens is not None and usage.prm_tokens >= prm_tokens,
        None: all(c.sample.finish_reason != "budget" for c in final.candidates),
    }
    assert reached[account.stop_reason]
    assert final.best.sample.finish_reason in ("eos", "stop", "length", "budget")


@pytest.mark.parametrize("token_s", [0.005, 3600.0])
def test_a_deadline_returns_what_there_is(entry: Entry, token_s: float) -> None:
    async def main() -> None:
        engine = FakeEngine(world(steps=400), token_s=token_s)
        async with asyncio.timeout(NEVER_S):
            done = await search(entry, engine, reward(entry), budget=Budget(deadline_s=0.1), **few(entry))
        assert done.account.stop_reason == "deadline"
        assert done.final.best.sample.finish_reason == "budget"
        assert bool(done.final.best.text) == (token_s < 1)
        assert done.account.usage.completion_tokens == engine.generated
        assert done.account.wall_s <= 0.1 + TINY_S
        assert engine.live == 0

    in_virtual_time(main())


def test_a_deadline_does_not_wait_for_scores(entry: Entry) -> None:
    async def main() -> None:
        prm = reward(entry, FakePRM(delay_s=3600))
        async with asyncio.timeout(NEVER_S):
            done = await search(
                entry, FakeEngine(world()), prm, budget=Budget(deadline_s=0.2), **few(entry, selector="weighted")
            )
        assert done.final.best.text
        assert done.account.stop_reason == ("deadline" if entry.scored else None)
        assert done.account.wall_s <= 0.2 + TINY_S

    in_virtual_time(main())


def test_a_deadline_does_not_wait_for_algebra(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(latex: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(symbolic, "key", hangs)

    async def main() -> None:
        engine = FakeEngine(lambda request: r"So \boxed{\sqrt{x}}.")
        account = Account(Budget(deadline_s=0.2))
        async with asyncio.timeout(NEVER_S):
            async with aclosing(begin(entry, engine, reward(entry), account=account, **few(entry))) as events:
                *_, final = [event async for event in watched(events, account)]
        assert isinstance(final, Final)
        assert final.best.answer == r"\sqrt{x}"
        assert account.wall_s <= 0.2 + TINY_S
        late = account.wall_s > 0.2 - TICK_S
        assert account.stop_reason == ("deadline" if late else None)
        assert late or entry.name not in ("best_of_n", "self_consistency", "beam_search")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(main())


def test_logprobs_spell_the_answer_or_are_refused(entry: Entry) -> None:
    task = replace(TASK, sampling=replace(TASK.sampling, logprobs=0))

    async def main() -> None:
        engine = FakeEngine(world())
        if entry.name in ("budget_forcing", "chain_of_action_thought", "early_exit", "tree_of_thoughts"):
            with pytest.raises(Refused, match="has no logprobs of its own") as caught:
                await search(entry, engine, reward(entry), task=task, **few(entry))
            assert (caught.value.param, engine.generated) == ("logprobs", 0)
            return
        sample = (await search(entry, engine, reward(entry), task=task, **few(entry))).final.best.sample
        assert "".join(token.token for token in sample.logprobs) == sample.text

    asyncio.run(main())


class Noting(Ledger):
    """A reward model that notes what it is asked to score."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self.asked: list[tuple[str, ...]] = []

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        self.asked += map(tuple, solutions)
        return await super().score(question, solutions, on_tokens=on_tokens)


def test_what_has_ended_is_scored_once(entry: Entry) -> None:
    if not entry.scored:
        return

    def unequal(request: FakeRequest) -> str:
        return f"{world()(request).removesuffix('.')}, {request.rng.getrandbits(64)}."

    async def main() -> None:
        account = Account()
        prm = Noting(account)
        options = few(entry, selector="weighted", max_steps=6)
        async with aclosing(begin(entry, FakeEngine(unequal), prm, account=account, **options)) as events:
            async for _ in events:
                pass
        ended = [steps for steps in prm.asked if "boxed" in steps[-1]]
        assert len(ended) == len(set(ended))
        assert ended or entry.name == "tree_of_thoughts"  # which writes its thoughts without ends

    asyncio.run(main())


def test_the_prompt_is_counted_as_the_client_sent_it(entry: Entry) -> None:
    async def main() -> None:
        for engine in (FakeEngine(world()), FakeEngine(world(), continues=False)):
            if entry.continues and not engine.continues:
                continue
            account = Account(prompt=TASK.prompt)
            async with aclosing(begin(entry, engine, reward(entry), account=account, **few(entry))) as events:
                async for _ in events:
                    pass
            told = account.usage.prompt_tokens
            own = len(await FakeEngine(world()).encode(TASK.prompt))
            # Without token ids nobody knows how many an instruction has added.
            assert told == own if engine.continues else told >= own
            assert account.usage.engine_prompt_tokens >= told

    asyncio.run(main())


def test_cancelling_at_any_await_leaves_nothing_behind(entry: Entry) -> None:
    async def main(turns: int) -> bool:
        engine = FakeEngine(world(steps=2, gap=1), chunk_tokens=4)
        options = few(entry, selector="weighted")
        task = asyncio.create_task(search(entry, engine, reward(entry), **options))
        for _ in range(turns):
            await asyncio.sleep(0)
        done = task.done()
        task.cancel()
        async with asyncio.timeout(NEVER_S):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() != done
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert engine.live == 0
        return done

    with asyncio.Runner() as runner:
        turns = 0
        while not runner.run(main(turns)):
            turns += 1
    assert turns > 3


def test_closing_after_any_event_leaves_nothing_behind(entry: Entry) -> None:
    async def main(wanted: int) -> int:
        engine = FakeEngine(world(gap=1), chunk_tokens=4)
        account = Account()
        run = begin(entry, engine, reward(entry), account=account, **few(entry, selector="weighted"))
        seen = 0
        async with aclosing(run) as events:
            async for _ in events:
                seen += 1
                if seen == wanted:
                    break
        assert engine.live == 0
        assert account.usage.completion_tokens == engine.generated
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return seen

    with asyncio.Runner() as runner:
        wanted = 1
        while runner.run(main(wanted)) == wanted:
            wanted += 1
    assert wanted > 2


def test_a_failing_branch_does_not_fail_the_search(entry: Entry) -> None:
    engine = FakeEngine(broken(world(), 1))
    done = asyncio.run(search(entry, engine, reward(entry), task=several(entry), **few(entry)))
    best = done.final.best
    assert best.text.endswith("}.")
    assert best.sample.finished
    failed = [c for c in done.final.candidates if c.sample.finish_reason == "error"]
    assert failed
    assert all(c.score is None and c.answer is None and c.weight == 0 for c in failed)
    assert done.account.usage.completion_tokens == engine.generated


@pytest.mark.parametrize("how", ["filtered", "refuses"])
def test_what_is_filtered_or_refused_has_no_vote(entry: Entry, how: str) -> None:
    plain = world()

    def script(request: FakeRequest) -> str | FakeReply:
        return withheld(how, r"I say \boxed{5}.") if request.index == 1 else plain(request)

    done = asyncio.run(search(entry, FakeEngine(script), reward(entry), task=several(entry), **few(entry)))
    assert not done.final.best.sample.withheld
    assert done.final.best.text.endswith("}.")
    assert "5" not in [vote.answer for vote in done.final.votes]


@pytest.mark.parametrize("how", ["filtered", "refuses"])
def test_where_all_is_filtered_or_refused_the_client_hears_of_it(entry: Entry, how: str) -> None:
    engine = FakeEngine(lambda request: withheld(how, r"I say \boxed{5}."))
    done = asyncio.run(search(entry, engine, reward(entry), task=several(entry), **few(entry)))
    best = done.final.best.sample
    assert best.withheld
    if how == "filtered":
        assert (best.finish_reason, best.text.endswith(r"\boxed{5}.")) == ("content_filter", True)
    else:
        assert best.refusal.startswith("I say")
    assert done.account.usage.completion_tokens == engine.generated


@pytest.mark.parametrize("make", [lambda: FakeEngine(broken(world(), *range(64))), LosingEngine], ids=["all", "each"])
def test_when_all_fail_the_first_cause_is_raised(entry: Entry, make: Callable[[], FakeEngine]) -> None:
    engine = make()
    with pytest.raises(ConnectionError, match="sample 0 is lost"):
        asyncio.run(search(entry, engine, reward(entry), task=several(entry), **few(entry)))
    assert engine.live == 0


def test_an_engine_that_breaks_midway_keeps_what_has_ended(entry: Entry) -> None:
    engine = BreakingEngine(world(gap=3))
    done = asyncio.run(search(entry, engine, reward(entry), task=several(entry), **few(entry)))
    best = done.final.best
    assert best.sample.finished
    assert best.text.endswith("}.")
    assert done.account.usage.completion_tokens == engine.generated
    assert engine.live == 0


@pytest.mark.parametrize(
    "wrong", [lambda steps: [1.5] * len(steps), lambda steps: [float("nan")] * len(steps), lambda steps: [0.5]]
)
def test_what_is_not_a_score_is_an_error(entry: Entry, wrong: Any) -> None:
    prm = FakePRM(lambda question, steps: wrong(steps))
    run = search(entry, FakeEngine(world()), reward(entry, prm), **few(entry, selector="weighted"))
    if entry.scored:
        with pytest.raises(PRMError):
            asyncio.run(run)
    else:
        assert asyncio.run(run).final.best.score is None


@pytest.mark.parametrize("entry", [n for n, e in strategies.registry().items() if not e.needs_prm], indirect=True)
def test_it_needs_no_reward_model_where_it_does_not_score(entry: Entry) -> None:
    done = asyncio.run(search(entry, FakeEngine(world()), None, **few(entry, selector="majority")))
    assert done.final.best.text.endswith("}.")
    assert done.final.best.score is None


@pytest.mark.parametrize("entry", having("selector"), indirect=True)
def test_a_selector_that_needs_scores_is_refused_without_a_reward_model(entry: Entry) -> None:
    engine = FakeEngine(world())
    with pytest.raises(Refused) as caught:
        asyncio.run(search(entry, engine, None, **few(entry, selector="weighted")))
    assert caught.value.param == ("tts.prm" if entry.needs_prm else "tts.selector")
    assert engine.generated == 0


@pytest.mark.parametrize("entry", having("n"), indirect=True)
def test_more_choices_than_samples_are_refused_before_any_token(entry: Entry) -> None:
    engine = FakeEngine(world())
    run = search(entry, engine, reward(entry), task=replace(TASK, choices=5), **few(entry))
    with pytest.raises(Refused) as caught:
        asyncio.run(run)
    assert caught.value.param == "n"
    assert engine.generated == 0


def test_wrong_options_are_refused(entry: Entry) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        entry.options.model_validate({"no_such_option": 1})
    for name in entry.options.model_fields:
        with pytest.raises(ValidationError, match=name):
            entry.options.model_validate({name: object()})
    if "n" in entry.options.model_fields:
        for n in ("4", 0, -1, 2.5, True, None):
            with pytest.raises(ValidationError, match="n\n"):
                entry.options.model_validate({"n": n})


def test_it_says_what_it_is(entry: Entry) -> None:
    assert entry.description.endswith(".")
    assert entry.paper
    schema = json.loads(json.dumps(entry.options.model_json_schema()))
    assert schema["additionalProperties"] is False
    for name, option in schema.get("properties", {}).items():
        assert option["description"], name
    entry.options.model_validate({})


class Short(FakePRM):
    """Scores what is shorter than so many characters."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        lengths = [sum(map(len, steps)) for steps in solutions]
        refuse({i: f"{length} characters are too many" for i, length in enumerate(lengths) if length >= self.limit})
        return await super().score(question, solutions, on_tokens=on_tokens)


@pytest.mark.parametrize("limit", [0, 100])
def test_what_the_reward_model_cannot_score_goes_on_without(entry: Entry, limit: int) -> None:
    if not entry.scored:
        return

    def wordy(request: FakeRequest) -> str:
        """The last sample is the longest, and the only one to say 7."""
        said = world(p=1.0)(request)
        return said.replace("{1}", "{7}").replace("The", "word " * 30 + "The") if request.index == 3 else said

    done = asyncio.run(search(entry, FakeEngine(wordy), Short(limit), **few(entry)))
    final = done.final
    assert final.best.answer == "1"
    assert not [c for c in final.candidates if c.sample.finish_reason == "error"]
    if not limit:
        assert {c.score for c in final.candidates} == {None}


@pytest.mark.parametrize("scored", [True, False])
def test_the_default_options_need_no_more_samples_than_the_server_allows(entry: Entry, scored: bool) -> None:
    if not scored and (entry.needs_prm or entry.name == "best_of_n"):
        return
    budget, prm = Budget(max_samples=RequestLimit().max_samples), FakePRM() if scored and entry.scored else None
    done = asyncio.run(search(entry, FakeEngine(world(p=0.5, steps=40)), prm, budget=budget))
    assert done.account.stop_reason is None
