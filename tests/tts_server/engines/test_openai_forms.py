"""Tools, JSON and thoughts over an upstream: what is passed on, and how its answer reads."""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from serving import ask, frames, serving
from upstream import StandIn

from tts_server.config import Settings
from tts_server.engines.openai_http import OpenAIEngine

FIND: dict[str, Any] = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
JSON: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


class Over:
    """A server over a stand-in."""

    def __init__(self, upstream: StandIn, **settings: Any) -> None:
        self.upstream = upstream
        self.settings = Settings(**settings)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Any:
        url = await self._stack.enter_async_context(self.upstream.serve())
        engine = OpenAIEngine(url, name="fake")
        await engine.start()
        self._stack.push_async_callback(engine.close)
        self.upstream.forget()
        return await self._stack.enter_async_context(serving(engine, settings=self.settings))

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "find"}}], ids=str)
def test_a_chat_gets_the_tools_and_its_calls_come_back(choice: Any) -> None:
    upstream = StandIn(
        kind="chat", reasoning="hm", calls=(("find", '{"a": "<b>"}'), ("find", "")), reply=lambda b, i: ""
    )

    async def main() -> None:
        async with Over(upstream) as client:
            fields = {"tools": [FIND], "tool_choice": choice, "parallel_tool_calls": True}
            plain = (await ask(client, **fields)).json()
            sent = upstream.bodies[0]
            assert (sent["tools"], sent["tool_choice"]) == ([FIND], choice)
            assert "response_format" not in sent
            (said,) = plain["choices"]
            assert said["finish_reason"] == "tool_calls"
            assert said["message"]["reasoning"] == "hm"
            made = [call["function"] for call in said["message"]["tool_calls"]]
            assert made == [{"name": "find", "arguments": '{"a": "<b>"}'}, {"name": "find", "arguments": "{}"}]
            assert plain["usage"]["completion_tokens"] == upstream.tokens
            seen = await frames(client, **fields)
            heads = [d for c in seen for d in c["choices"][0]["delta"].get("tool_calls", ()) if "id" in d]
            assert [head["function"]["name"] for head in heads] == ["find", "find"]

    asyncio.run(main())


def test_calls_of_a_chat_vote() -> None:
    upstream = StandIn(kind="chat", calls=(("find", "{}"),), reply=lambda b, i: "")

    async def main() -> None:
        async with Over(upstream) as client:
            asked = {"tools": [FIND], "tts": {"strategy": "self_consistency", "n": 3}}
            plain = (await ask(client, **asked)).json()
            assert plain["tts"]["votes"] == [{"answer": '[{"arguments":{},"name":"find"}]', "count": 3, "weight": 3.0}]
            assert plain["choices"][0]["finish_reason"] == "tool_calls"

    asyncio.run(main())


def test_a_format_is_passed_on_and_held_to_all_the_same() -> None:
    for kind in ("chat", "vllm"):
        upstream = StandIn(kind=kind, reply=lambda body, index: '{"a": 1}' if index else "no JSON")  # type: ignore[arg-type]

        async def main(upstream: StandIn = upstream) -> None:
            async with Over(upstream) as client:
                asked = {"response_format": JSON, "tts": {"strategy": "self_consistency", "n": 2}}
                plain = (await ask(client, **asked)).json()
                assert upstream.bodies[0]["response_format"] == JSON
                assert plain["choices"][0]["message"]["content"] == '{"a": 1}'
                assert [vote["count"] for vote in plain["tts"]["votes"]] == [1]

        asyncio.run(main())


def test_token_ids_get_the_tools_by_the_template_and_calls_that_must_be_by_a_schema() -> None:
    made = [{"name": "find", "parameters": {}}]
    upstream = StandIn(reply=lambda body, index: json.dumps(made) if "response_format" in body else "<tool_call>")

    async def main() -> None:
        async with Over(upstream) as client:
            refused = await ask(client, tools=[FIND])
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "tools"
            assert "tool_parser: hermes, llama3_json" in refused.json()["error"]["message"]
            plain = (await ask(client, tools=[FIND], tool_choice="required")).json()
            assert "[find]" in "".join(map(chr, upstream.bodies[0]["prompt"]))
            assert plain["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "find", "arguments": "{}"}

    asyncio.run(main())


def test_token_ids_with_a_configured_parser() -> None:
    call = '<tool_call>{"name": "find", "arguments": {}}</tool_call>'

    async def main() -> None:
        async with Over(StandIn(reply=lambda body, index: call), tool_parser="hermes") as client:
            plain = (await ask(client, tools=[FIND])).json()
            assert plain["choices"][0]["finish_reason"] == "tool_calls"

    asyncio.run(main())


@pytest.mark.parametrize("opening", [None, "", "<think>\n"])
def test_a_template_that_opens_the_thought_is_known(opening: str | None) -> None:
    upstream = StandIn(opening=opening, reply=lambda body, index: "hm</think>\n\n4")

    async def main() -> None:
        async with Over(upstream) as client:
            for fields in ({}, {"tts": {"strategy": "self_consistency", "n": 2}}):
                message = (await ask(client, **fields)).json()["choices"][0]["message"]
                if opening:
                    assert (message["content"], message["reasoning"]) == ("4", "hm")
                else:
                    assert message["content"] == "hm</think>\n\n4"
            # The template is asked about once, beside the one rendering that each request needs.
            paths = [path for path, _ in upstream.requests]
            assert paths.count("/detokenize") == (0 if opening is None else 1)
            await ask(client, chat_template_kwargs={"enable_thinking": False})
            paths = [path for path, _ in upstream.requests]
            assert paths.count("/detokenize") == (0 if opening is None else 2)

    asyncio.run(main())
