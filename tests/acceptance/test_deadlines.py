"""Deadlines at the HTTP surface: every strategy answers in time, with a body like any other.

In virtual time, so that it does not depend on the machine; `bench.studies.deadlines` measures the same in real time.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from searching import world
from serving import ask, frames
from virtual_time import in_virtual_time

import strategies
from prm import FakePRM
from tts_server.app import create_app
from tts_server.engines.fake import FakeEngine

TOKEN_S, SCORING_S, HANGS_S = 0.02, 0.15, 3600.0
LATE_S = 0.1
AT_ONCE = 25


@asynccontextmanager
async def reached(engine: FakeEngine, prm: FakePRM) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server without a network between them, whose time would be real."""
    transport = httpx.ASGITransport(create_app(engine, [prm]))
    async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=None) as client:
        yield client


def check(name: str, response: httpx.Response) -> dict[str, Any]:
    """The body, which must have the shape of a chat's answer."""
    assert response.status_code == 200, (name, response.text)
    answer: dict[str, Any] = response.json()
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert answer["tts"]["stop_reason"] in (None, "deadline")
    return answer


@pytest.mark.parametrize(("scoring_s", "requests"), [(SCORING_S, 200), (HANGS_S, 60)])
def test_every_strategy_answers_in_time(scoring_s: float, requests: int) -> None:
    rng, names = random.Random(11), list(strategies.registry())
    asked = [(names[i % len(names)], 0.05 * 100 ** rng.random()) for i in range(requests)]

    async def main() -> list[float]:
        engine, places = FakeEngine(world(steps=400), token_s=TOKEN_S), asyncio.Semaphore(AT_ONCE)
        async with reached(engine, FakePRM(delay_s=scoring_s)) as client:

            async def late(seed: int, name: str, deadline_s: float) -> float:
                options = {"n": 4} if "n" in strategies.get(name).options.model_fields else {}
                tts = {"strategy": name, "budget": {"deadline_s": deadline_s}, **options}
                async with places:
                    began = time.monotonic()
                    answer = check(name, await ask(client, tts=tts, seed=seed))
                    seconds = time.monotonic() - began
                assert answer["tts"]["stop_reason"] == "deadline", name
                return seconds - deadline_s

            found = await asyncio.gather(*(late(seed, *one) for seed, one in enumerate(asked)))
        assert engine.live == 0
        return found

    assert max(in_virtual_time(main())) <= LATE_S


def test_a_stream_that_its_deadline_ends_is_whole() -> None:
    async def main() -> None:
        async with reached(FakeEngine(world(steps=200), token_s=TOKEN_S), FakePRM(delay_s=SCORING_S)) as client:
            for name in strategies.registry():
                chunks = await frames(client, tts={"strategy": name, "budget": {"deadline_s": 0.4}})
                told = next(chunk["tts"] for chunk in chunks if "tts" in chunk)
                assert told["stop_reason"] == "deadline", name
                ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
                assert ends == ["length"], name

    in_virtual_time(main())


def test_requests_learn_from_one_another_how_long_an_answer_takes() -> None:
    async def main() -> None:
        async with reached(FakeEngine(world(p=1.0, steps=20), token_s=TOKEN_S), FakePRM(delay_s=SCORING_S)) as client:
            tts = {"strategy": "beam_search", "n": 4}
            free = check("beam_search", await ask(client, tts=tts))
            wall_s = free["tts"]["usage"]["wall_s"]
            # There is time for whole solutions and none for a search over their steps.
            in_a_hurry = {**tts, "budget": {"deadline_s": 0.6 * wall_s}}
            answer = check("beam_search", await ask(client, tts=in_a_hurry))
            assert answer["tts"]["stop_reason"] == "deadline"
            assert answer["tts"]["answer"] == "1"
            assert answer["choices"][0]["finish_reason"] == "stop"

    in_virtual_time(main())
