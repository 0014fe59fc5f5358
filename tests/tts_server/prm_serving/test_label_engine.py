"""Labels and critiques by way of the engine's contract, in a fake's tokens."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from prm import PRMError
from prm.families.contract import LabelTokens, Layout
from strategies.core.contracts import Chunk, Prompt, Sampling
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest, encode, token_id
from tts_server.errors import EngineUnavailable
from tts_server.prm_serving.label_engine import EngineReader, EngineWriter

LABELS = LabelTokens(token_id("+"), token_id("-"))


def sure(text: str) -> float:
    return sum(text.encode()) % 101 / 100


def verdict(request: FakeRequest) -> FakeReply:
    return FakeReply("+", {"+": sure(request.text) * 0.3, "-": (1 - sure(request.text)) * 0.3, "maybe": 0.4})


def layout(*steps: str) -> Layout:
    ids, ends = list[int](), list[int]()
    for step in steps:
        ids += encode(step)
        ends.append(len(ids) - 1)
    return Layout(tuple(ids), tuple(ends))


def read(engine: FakeEngine, layouts: Sequence[Layout], **more: Any) -> list[tuple[float, ...]]:
    return asyncio.run(EngineReader(engine, LABELS).read(layouts, **more))


def test_each_end_is_the_right_labels_share_of_the_two() -> None:
    asked: list[FakeRequest] = []

    def script(request: FakeRequest) -> FakeReply:
        asked.append(request)
        return verdict(request)

    scores = read(FakeEngine(script), [layout("one ", "two ", "three "), layout("four ")])
    assert scores == [
        pytest.approx((sure("one "), sure("one two "), sure("one two three "))),
        pytest.approx((sure("four "),)),
    ]
    assert {(r.sampling.max_tokens, r.sampling.temperature, r.sampling.logprob_token_ids) for r in asked} == {
        (1, 0.0, (LABELS.right, LABELS.wrong))
    }


def test_tokens_are_the_prompts_and_one_each() -> None:
    tokens = list[int]()
    asked = layout("one ", "two ")
    read(FakeEngine(verdict), [asked], on_tokens=tokens.append)
    assert sum(tokens) == sum(end + 1 + 1 for end in asked.ends)


def test_a_layout_leaves_room_for_the_label() -> None:
    assert EngineReader(FakeEngine(max_model_len=100), LABELS).max_len == 99


class Silent(FakeEngine):
    """Tells no logprobs."""

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(prompt, sampling, n):
            yield replace(chunk, logprobs=())


def test_what_the_engine_does_not_tell_is_an_error() -> None:
    with pytest.raises(PRMError, match="told no logprobs"):
        read(Silent(verdict), [layout("a ")])


def test_an_engine_that_breaks_is_the_reward_model_s_failure() -> None:
    def script(request: FakeRequest) -> FakeReply:
        raise OSError("gone")

    with pytest.raises(PRMError, match="the engine of the reward model failed: gone"):
        read(FakeEngine(script), [layout("a ")])


def test_an_engine_that_is_down_says_so_itself() -> None:
    engine = FakeEngine(verdict)
    asyncio.run(engine.close())
    with pytest.raises(EngineUnavailable):
        read(engine, [layout("a ")])


def test_cancelling_aborts_what_is_under_way() -> None:
    async def main() -> None:
        engine = FakeEngine(verdict, token_s=60)
        reading = asyncio.create_task(EngineReader(engine, LABELS).read([layout("a ", "b ")]))
        for _ in range(20):
            await asyncio.sleep(0)
        assert engine.live == 2
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert engine.live == 0

    asyncio.run(main())


def test_an_engine_without_token_ids_is_refused_at_the_start() -> None:
    with pytest.raises(PRMError, match="takes no token ids"):
        asyncio.run(EngineReader(FakeEngine(continues=False), LABELS).start())


def test_only_an_engine_of_its_own_is_started_and_closed() -> None:
    async def main(engine: FakeEngine, owned: FakeEngine | None) -> bool:
        engine.healthy = False
        reader = EngineReader(engine, LABELS, owned)
        await reader.start()
        started = engine.healthy
        await reader.close()
        assert not engine.healthy
        return started

    engine = FakeEngine()
    assert asyncio.run(main(engine, engine))
    assert not asyncio.run(main(FakeEngine(), None))


def test_critiques_are_the_likeliest_up_to_a_stop() -> None:
    asked: list[FakeRequest] = []

    def script(request: FakeRequest) -> str:
        asked.append(request)
        return f"{request.text}is fine. STOP and on"

    prompts, tokens = [encode("a "), encode("b ")], list[int]()
    written = asyncio.run(
        EngineWriter(FakeEngine(script))(prompts, [("STOP",), ("on", "STOP")], 50, on_tokens=tokens.append)
    )
    assert written == ["a is fine. ", "b is fine. "]
    assert [(r.sampling.temperature, r.sampling.max_tokens, r.sampling.stop) for r in asked] == [
        (0.0, 50, ("STOP",)),
        (0.0, 50, ("on", "STOP")),
    ]
    assert sum(tokens) > sum(map(len, prompts))
