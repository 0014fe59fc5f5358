"""One budget for a batch's lines: it is kept, goes where votes differ, and is better spent than in even parts."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from batching import batching, ended, line, submit, told
from serving import until

from prm import ProcessRewardModel
from prm.fake import FakePRM
from tts_server.config import BatchConfig
from tts_server.engines.fake import FakeEngine, FakeRequest

WORDS = "so " * 20
LINES = 60
TOTAL = 16_000


def script(request: FakeRequest) -> str:
    """Of questions that are easy, hard or beyond it; the right answer is 7."""
    easy, hard = "easy" in request.text, "hard" in request.text
    right = request.rng.random() < (0.98 if easy else 0.5 if hard else 0.0)
    answer = 7 if right else request.rng.choice([3, 4, 5]) if easy or hard else request.rng.randrange(100, 1000)
    return rf"{WORDS}The answer is \boxed{{{answer}}}."


def questions(**tts: Any) -> list[dict[str, Any]]:
    kinds = ["easy", "easy", "hard", "beyond", "hard"]
    names = [f"{kinds[i % 5]} {i}" for i in range(LINES)]
    return [line(name, name, seed=i, **({"tts": tts} if tts else {})) for i, name in enumerate(names)]


async def answers(
    directory: Path, lines: list[dict[str, Any]], at_once: int, prms: Sequence[ProcessRewardModel] = (), **fields: Any
) -> dict[str, Any]:
    async with batching(directory, FakeEngine(script), BatchConfig(concurrency=at_once), prms=prms) as client:
        done = await ended(client, await submit(client, lines, **fields))
        assert done["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        return {name: one["response"]["body"] for name, one in (await told(client, done["output_file_id"])).items()}


def cost(bodies: dict[str, Any], kind: str = "") -> int:
    return sum(body["tts"]["usage"]["completion_tokens"] for name, body in bodies.items() if kind in name)


def shared(total: int) -> dict[str, Any]:
    return {"metadata": {"tts_total_tokens": str(total)}}


def right(bodies: dict[str, Any]) -> int:
    return sum(body["tts"]["answer"] == "7" for body in bodies.values())


def test_it_is_better_spent_than_in_even_parts(tmp_path: Path) -> None:
    spread = asyncio.run(answers(tmp_path / "spread", questions(), 1, **shared(TOTAL)))
    part = {"max_tokens": TOTAL // LINES}
    even = asyncio.run(answers(tmp_path / "even", questions(strategy="compute_optimal", budget=part), 1))
    assert cost(spread) <= TOTAL
    assert right(spread) > right(even)
    # Most of the rest is where votes differ.
    assert cost(spread, "hard") > 2.5 * cost(spread, "easy")
    assert {body["tts"]["strategy"] for body in spread.values()} == {"compute_optimal"}


@pytest.mark.parametrize("total", [TOTAL, 9_000])
def test_lines_that_are_answered_at_once_keep_it_too(tmp_path: Path, total: int) -> None:
    bodies = asyncio.run(answers(tmp_path, questions(), 8, **shared(total)))
    assert 0.9 * total < cost(bodies) <= total
    assert cost(bodies, "hard") > 1.2 * cost(bodies, "easy")


@pytest.mark.parametrize(("total", "scoring"), [(3 * TOTAL, "most"), (10_000, "few")])
def test_the_reward_model_s_tokens_are_paid_from_it(tmp_path: Path, total: int, scoring: str) -> None:
    bodies = asyncio.run(answers(tmp_path, questions(), 8, prms=[FakePRM()], **shared(total)))
    scored = [body["tts"]["usage"]["prm_tokens"] for body in bodies.values()]
    assert sum(scored) > 0
    assert cost(bodies) + sum(scored) <= total
    # Where that does not pay for scores of all, samples go first.
    assert (sum(map(bool, scored)) > LINES / 3) is (scoring == "most")


def test_a_server_that_comes_after_goes_on_with_what_is_left(tmp_path: Path) -> None:
    class Stuck(FakeEngine):
        async def generate(self, prompt: Any, sampling: Any, n: int = 1) -> AsyncGenerator[Any, None]:
            async for chunk in super().generate(prompt, sampling, n):
                yield chunk
                if self.generated > TOTAL / 3:
                    await asyncio.Future()

    async def main() -> None:
        before, after = Stuck(script), FakeEngine(script)
        async with batching(tmp_path, before, BatchConfig(concurrency=4)) as client:
            made = await submit(client, questions(), **shared(TOTAL))
            await until(lambda: before.generated > TOTAL / 3)
        async with batching(tmp_path, after, BatchConfig(concurrency=4)) as client:
            done = await ended(client, made)
            assert done["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
            assert done["metadata"] == {"tts_total_tokens": str(TOTAL)}
            good = await told(client, done["output_file_id"])
        # What was under way in between is generated again, and paid twice; a step of it may not be known.
        answered = cost({name: one["response"]["body"] for name, one in good.items()})
        assert 0.8 * TOTAL < answered < before.generated + after.generated <= TOTAL + 4 * 4

    asyncio.run(main())


def test_lines_for_which_nothing_is_left_say_so(tmp_path: Path) -> None:
    async def main() -> None:
        engine = FakeEngine(script)
        async with batching(tmp_path, engine) as client:
            done = await ended(client, await submit(client, questions(), **shared(500)))
            good = await told(client, done["output_file_id"])
            bad = await told(client, done["error_file_id"])
            assert len(good) + len(bad) == LINES
            assert done["request_counts"] == {"total": LINES, "completed": len(good), "failed": len(bad)}
            assert {one["error"]["code"] for one in bad.values()} == {"batch_budget_spent"}
            assert good
            # Of a live sample there may be a step more than was taken from it.
            assert 500 <= engine.generated <= 500 + 8 * 4

    asyncio.run(main())


def test_what_a_failed_line_has_cost_is_paid(tmp_path: Path) -> None:
    class Failing(FakeEngine):
        async def generate(self, prompt: Any, sampling: Any, n: int = 1) -> AsyncGenerator[Any, None]:
            grown = 0
            async for chunk in super().generate(prompt, sampling, n):
                yield chunk
                grown += chunk.completion_tokens
                if grown > 60:
                    raise RuntimeError("broken")

    async def main() -> None:
        engine = Failing(script)
        async with batching(tmp_path, engine) as client:
            done = await ended(client, await submit(client, questions(), **shared(1000)))
            # Of a live sample there may be a step more than was taken from it.
            assert 1000 <= engine.generated <= 1000 + 8 * 4
            bad = await told(client, done["error_file_id"])
            codes = [one["error"] and one["error"]["code"] for one in bad.values()]
            assert 1 < codes.count(None) < len(codes)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tts": {"strategy": "best_of_n"}}, "body.tts.strategy"),
        ({"tts": {"budget": {"max_tokens": 9}}}, "body.tts.budget"),
        ({"tts": {"min_gain": 0.1}}, "body.tts.min_gain"),
        ({"tts": 7}, "body.tts"),
        ({"model": "fake@high"}, "body.model"),
        ({"reasoning_effort": "low"}, "body.reasoning_effort"),
        ({"reasoning": {"effort": "low"}}, "body.reasoning.effort"),
    ],
)
def test_a_line_that_decides_for_itself_fails_its_batch(tmp_path: Path, fields: dict[str, Any], param: str) -> None:
    async def main() -> None:
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, [line("a"), line("b", **fields)], **shared(1000)))
            (error,) = done["errors"]["data"]
            assert (done["status"], error["line"], error["param"]) == ("failed", 2, param)
            assert "tts_total_tokens" in error["message"]
            # Without a shared budget it is nobody else's business.
            alone = await ended(client, await submit(client, [line("b", **fields)]))
            assert alone["status"] == "completed"

    asyncio.run(main())


def test_a_line_s_other_wishes_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        wishes = {"strategy": "compute_optimal", "return_candidates": True, "confidence": 0.99}
        own = [line("a", tts=wishes, max_tokens=5), line("b", model="fake@compute_optimal")]
        async with batching(tmp_path) as client:
            done = await ended(client, await submit(client, own, **shared(1000)))
            good = await told(client, done["output_file_id"])
            one, other = (good[name]["response"]["body"] for name in "ab")
            assert {candidate["completion_tokens"] for candidate in one["tts"]["candidates"]} == {5}
            assert "candidates" not in other["tts"]

    asyncio.run(main())


def test_responses_share_one_as_chats_do(tmp_path: Path) -> None:
    url = "/v1/responses"
    own = [
        {"custom_id": f"{i}", "method": "POST", "url": url, "body": {"model": "fake", "input": "2?"}} for i in (1, 2)
    ]

    async def main() -> None:
        engine = FakeEngine()
        async with batching(tmp_path, engine) as client:
            done = await ended(client, await submit(client, own, endpoint=url, **shared(600)))
            assert done["request_counts"]["completed"] == 2
            assert engine.generated <= 600 + 2 * 4

    asyncio.run(main())
