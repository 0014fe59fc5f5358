"""OpenAI's own client, with `tts`."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from scripted import Reply, scripted
from serving import QUESTION, serving, until

from prm.fake import FakePRM
from tts_server.client import TTS, BestOfN, Search, wrap
from tts_server.client.wrap import WrappedOpenAI
from tts_server.engines.fake import FakeEngine


def asked(ask: Callable[[WrappedOpenAI], Any]) -> Any:
    """What a user of the wrapped client gets."""

    def work(url: str) -> Any:
        with wrap(openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0)) as client:
            return ask(client)

    async def main() -> Any:
        async with serving(prms=[FakePRM()]) as http:
            return await asyncio.to_thread(work, str(http.base_url))

    return asyncio.run(main())


def test_tts_goes_out_and_comes_back_typed() -> None:
    def ask(client: WrappedOpenAI) -> None:
        for tts in (BestOfN(n=3), TTS("best_of_n", n=3), {"strategy": "best_of_n", "n": 3}):
            completion = client.chat.completions.create(model="fake", messages=QUESTION, tts=tts)
            assert isinstance(completion, openai.types.chat.ChatCompletion)
            assert isinstance(completion.tts, Search)
            assert (completion.tts.strategy, completion.tts.samples) == ("best_of_n", 3)
            assert completion.choices[0].message.content
            assert completion.model_dump(mode="json")["tts"]["samples"] == 3
            assert completion.usage
        plain = client.chat.completions.create(model="fake", messages=QUESTION)
        assert plain.tts
        assert plain.tts.strategy == "single"

    asked(ask)


def test_a_stream_s_last_chunk_is_typed() -> None:
    def ask(client: WrappedOpenAI) -> None:
        fields: dict[str, Any] = {"model": "fake", "messages": QUESTION, "tts": "self_consistency"}
        with client.chat.completions.create(stream=True, **fields) as stream:
            chunks = list(stream)
        assert [chunk.tts.strategy for chunk in chunks if chunk.tts] == ["self_consistency"]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    asked(ask)


def test_the_async_client_too() -> None:
    async def main() -> None:
        engine = FakeEngine(lambda request: "word " * 5000, token_s=0.002)
        async with (
            serving() as http,
            serving(engine) as slow,
            wrap(openai.AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="-")) as client,
            wrap(openai.AsyncOpenAI(base_url=f"{slow.base_url}/v1", api_key="-")) as patient,
        ):
            completion = await client.chat.completions.create(model="fake", messages=QUESTION, tts="self_consistency")
            assert completion.tts
            assert completion.tts.samples == 8
            stream = await client.chat.completions.create(model="fake", messages=QUESTION, stream=True)
            assert [chunk.tts.strategy async for chunk in stream if chunk.tts] == ["single"]
            async with await patient.chat.completions.create(model="fake", messages=QUESTION, stream=True) as left:
                async for _ in left:
                    break
            await until(lambda: engine.live == 0)
            assert engine.generated < 5000

    asyncio.run(main())


def test_the_rest_is_the_client_s_own() -> None:
    def ask(client: WrappedOpenAI) -> None:
        assert "fake" in [model.id for model in client.models.list()]
        raw = client.chat.completions.with_raw_response.create(model="fake", messages=QUESTION)
        assert raw.headers["x-request-id"]
        with client.chat.completions.stream(model="fake", messages=QUESTION, tts="self_consistency") as stream:
            told = [getattr(event.chunk, "tts", None) for event in stream if event.type == "chunk"]
        assert [tts["strategy"] for tts in told if tts] == ["self_consistency"]
        with pytest.raises(openai.BadRequestError, match="nope"):
            client.chat.completions.create(model="fake", messages=QUESTION, tts="nope")

    asked(ask)


def test_extra_body_and_parse_keep_working() -> None:
    class Answer(BaseModel):
        value: int

    message = {"role": "assistant", "content": '{"value": 4}', "refusal": None}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "fake"}
    body |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]}

    async def main() -> None:
        async with scripted(*[Reply(body=body)] * 2) as server:
            client = wrap(openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-"))
            fields: dict[str, Any] = {"model": "fake", "messages": QUESTION, "extra_body": {"top_k": 3}}
            await client.chat.completions.create(tts="mcts", **fields)
            parsed = await client.chat.completions.parse(tts="mcts", response_format=Answer, **fields)
            await client.close()
            assert [(sent["tts"], sent["top_k"]) for _, sent, _ in server.requests] == [({"strategy": "mcts"}, 3)] * 2
            assert parsed.choices[0].message.parsed == Answer(value=4)
            assert parsed.tts is None
            assert fields["extra_body"] == {"top_k": 3}

    asyncio.run(main())


def test_only_a_client_of_openai_is_wrapped() -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="-")
    for wrong in ("http://127.0.0.1:9", wrap(client)):
        with pytest.raises(TypeError, match=r"openai\.OpenAI or openai\.AsyncOpenAI"):
            wrap(wrong)  # type: ignore[call-overload]
