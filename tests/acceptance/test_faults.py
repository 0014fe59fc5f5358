"""Requests of every strategy under faults drawn from a seed: one answer each, in time, all counted, nothing left."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from serving import ask as chat
from serving import serving, until

import strategies
from bench.studies.faults import parts
from bench.studies.faults.answers import Answer
from bench.studies.faults.asks import LEAVES, TEXT, Ask, asks, fine
from bench.studies.faults.clients import Address, Outcome, make
from bench.studies.faults.inside import STEPS_S, FaultyPRM, stepping
from bench.studies.faults.kinds import FAULTS, PRM_FAULTS, Mark, PRMFault
from bench.studies.faults.ledger import compared, traced
from bench.studies.faults.parts import storm
from bench.studies.faults.upstream import FaultyUpstream
from bench.studies.faults.watch import Queued
from prm.judge import Judge
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.prm_serving.judge_engine import Verifier

ASKED = 150


class Served(NamedTuple):
    """A server in this event loop, and the upstream that it has."""

    upstream: FaultyUpstream
    engine: OpenAIEngine
    client: httpx.AsyncClient

    @property
    def at(self) -> Address:
        return Address(self.client.base_url.host, self.client.base_url.port or 0, Queued([os.getpid()]))


@asynccontextmanager
async def before_faults(settings: Settings, seed: int = 0) -> AsyncIterator[Served]:
    upstream = FaultyUpstream(seed)
    async with upstream.serve() as url:
        engine = OpenAIEngine(url, backoff_s=0.02, check_s=0.05)
        await engine.start()
        try:
            async with serving(engine, [FaultyPRM(), Judge(Verifier(engine))], settings) as client:
                yield Served(upstream, engine, client)
        finally:
            await engine.close()


def test_the_draw_holds_everything() -> None:
    drawn = asks(ASKED * 8, seed=1)
    assert {ask.mark.fault for ask in drawn} == set(FAULTS) - {"long"}
    assert {ask.mark.prm for ask in drawn} == set(PRM_FAULTS)
    assert {ask.leave for ask in drawn} == {None, *LEAVES}
    assert {ask.strategy for ask in drawn if "tts" in ask.body} == set(strategies.registry())
    assert len({ask.path for ask in drawn}) == 4
    assert asks(ASKED, seed=1) == drawn[:ASKED] != asks(ASKED, seed=2)


def test_every_request_ends_once_in_time_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", stepping(time.time))
    monkeypatch.setattr(parts, "OUTAGES", 1)
    monkeypatch.setattr(parts, "AGAIN_S", 0.05)

    async def main() -> None:
        mine = asyncio.all_tasks()
        async with before_faults(Settings(data_dir=tmp_path, traces="redacted"), seed=1) as served:
            outcomes = await storm(asks(ASKED, seed=1), served.at, served.upstream, clients=24)
            problems = [(outcome.ask, outcome.problem) for outcome in outcomes if outcome.problem]
            assert problems == []
            assert sorted(outcome.ask.number for outcome in outcomes) == list(range(ASKED))
            await until(lambda: not served.upstream.live)
            assert compared(outcomes, await traced(str(served.client.base_url)), served.upstream.counts).wrong == []
            # The last outage may have been over just before.
            while (await served.client.get("/ready")).status_code != 200:  # noqa: ASYNC110  it has to be asked
                await asyncio.sleep(0.01)
            burst = await asyncio.gather(*(make(fine(10_000 + i), served.at) for i in range(64)))
            assert {outcome.answer and outcome.answer.status for outcome in burst} == {200}
        await until(lambda: not served.upstream.connections)
        assert asyncio.all_tasks() == mine

    asyncio.run(main())


@pytest.mark.parametrize("step", STEPS_S)
def test_a_deadline_knows_no_wall_clock(step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Outcome:
        async with before_faults(Settings(data_dir=tmp_path)) as served:
            hangs = replace(fine(1, "stall", tts={"strategy": "single", "budget": {"deadline_s": 0.5}}), deadline_s=0.5)
            asking = asyncio.create_task(make(hangs, served.at))
            await asyncio.sleep(0.1)
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() + step)
            return await asking

    outcome = asyncio.run(main())
    assert outcome.problem is None
    assert outcome.answer
    assert outcome.answer.status == 200
    assert outcome.seconds >= 0.5


def test_a_text_whose_tokens_never_come_ends_at_its_deadline(tmp_path: Path) -> None:
    async def main() -> Outcome:
        async with before_faults(Settings(data_dir=tmp_path)) as served:
            mark = Mark(1, "hang")
            tts = {"strategy": "single", "budget": {"deadline_s": 0.3}}
            body = {"model": "stand-in", "prompt": f"2 + 2? {mark}", "tts": tts}
            return await make(Ask(1, TEXT, body, mark, 0.3), served.at)

    outcome = asyncio.run(main())
    assert outcome.problem is None
    assert outcome.answer == Answer(504, "timeout")


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("none", 200, '"stop_reason":null'),
        ("raises", 500, "The reward model failed: it was told to"),
        ("breaks", 500, "The server failed to answer this request."),
        ("short", 500, "The reward model failed"),
        ("few", 500, "The reward model failed"),
        ("hangs", 200, '"stop_reason":"deadline"'),
    ],
)
@pytest.mark.parametrize("strategy", ["best_of_n", "beam_search"])
def test_a_reward_model_that_fails_is_told(fault: PRMFault, status: int, words: str, strategy: str) -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, [FaultyPRM()]) as client:
            question = [{"role": "user", "content": f"2 + 2? {Mark(1, 'none', fault)}"}]
            tts = {"strategy": strategy, "n": 2, "selector": "best"}
            limit = {"budget": {"deadline_s": 0.5}} if fault == "hangs" else {}
            answer = await chat(client, messages=question, tts=tts | limit)
            assert (answer.status_code, engine.live) == (status, 0)
            assert words in answer.text

    asyncio.run(main())
