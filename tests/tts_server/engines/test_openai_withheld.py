"""An answer that an upstream filters or refuses, by every way to a client."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from batching import batching, ended, line, submit, told
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from says import BILL, Says, frame, heard, over
from serving import ask, serving

from tts_server.client import AsyncClient
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeReply, FakeRequest

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
NO = "I cannot help with that."
REFUSED = [
    frame({"role": "assistant", "content": None, "refusal": ""}),
    frame({"refusal": "I cannot "}),
    frame({"refusal": "help with that."}),
    frame({}, "stop"),
    BILL,
]
FILTERED = [frame({"content": "I "}), frame({}, "content_filter"), BILL]
JSON = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}}}


def refusing(*indexes: int, filtered: bool = False) -> FakeEngine:
    """An engine of which the samples with these indexes are withheld, and the others answer 42."""

    def script(request: FakeRequest) -> FakeReply:
        withheld = request.index in indexes
        text = r"Perhaps \boxed{5}." if filtered else NO
        return FakeReply(
            text if withheld else r"\boxed{42}", refuses=withheld and not filtered, filtered=withheld and filtered
        )

    return FakeEngine(script)


@pytest.mark.parametrize("fields", [{}, {"response_format": JSON}, {"tts": {"strategy": "self_consistency", "n": 3}}])
def test_a_chat_and_its_stream_tell_a_refusal(fields: dict[str, Any]) -> None:
    choice = heard(Says(says=REFUSED), **fields)
    assert (choice["message"]["refusal"], choice["message"]["content"]) == (NO, None)
    assert choice["finish_reason"] == "stop"
    assert choice["usage"]["completion_tokens"] == 5 * fields.get("tts", {}).get("n", 1)


def test_a_refusal_behind_a_thought_is_no_part_of_it() -> None:
    choice = heard(Says(says=[frame({"reasoning": "Should I?"}), *REFUSED]))
    assert (choice["message"]["reasoning"], choice["message"]["refusal"]) == ("Should I?", NO)


def test_logprobs_of_a_refusal_are_its_own() -> None:
    logprobs = {"content": None, "refusal": [{"token": "I", "logprob": -0.5, "top_logprobs": []}]}
    choice = heard(Says(says=[frame({"refusal": "I"}, logprobs=logprobs), frame({}, "stop"), BILL]), logprobs=True)
    assert choice["logprobs"]["content"] is None
    assert [entry["token"] for entry in choice["logprobs"]["refusal"]] == ["I"]


def test_a_response_tells_a_refusal_as_a_part_of_its_own() -> None:
    async def main() -> None:
        async with over(Says(says=REFUSED)) as client:
            body = {"model": "fake", "input": "?"}
            whole = (await client.post("/v1/responses", json=body)).json()
            Response.model_validate(whole)
            streamed = (await client.post("/v1/responses", json=body | {"stream": True})).text
        assert (whole["status"], whole["incomplete_details"]) == ("completed", None)
        assert whole["output"][0]["content"] == [{"type": "refusal", "refusal": NO}]
        events = [json.loads(event.partition("data: ")[2]) for event in streamed.removesuffix("\n\n").split("\n\n")]
        for event in events:
            EVENT.validate_python(event)
        assert [event["type"].removeprefix("response.") for event in events] == [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "refusal.delta",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ]
        assert "".join(event["delta"] for event in events if event["type"] == "response.refusal.delta") == NO
        assert events[-1]["response"]["output"][0]["content"] == whole["output"][0]["content"]

    asyncio.run(main())


def test_words_before_a_refusal_are_a_part_before_it() -> None:
    async def main() -> None:
        async with over(Says(says=[frame({"content": "Well. "}), *REFUSED[1:]])) as client:
            whole = (await client.post("/v1/responses", json={"model": "fake", "input": "?"})).json()
        (message,) = whole["output"]
        assert [part.get("text") or part.get("refusal") for part in message["content"]] == ["Well. ", NO]

    asyncio.run(main())


def test_a_response_that_was_filtered_is_incomplete() -> None:
    async def main() -> None:
        async with over(Says(says=FILTERED)) as client:
            whole = (await client.post("/v1/responses", json={"model": "fake", "input": "?"})).json()
        Response.model_validate(whole)
        assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "content_filter"})
        assert whole["output"][0]["status"] == "incomplete"

    asyncio.run(main())


def test_a_completion_that_was_filtered_says_so() -> None:
    async def main() -> None:
        async with serving(refusing(0, filtered=True)) as client:
            asked = {"model": "fake", "prompt": "?", "max_tokens": 50}
            (choice,) = (await client.post("/v1/completions", json=asked)).json()["choices"]
            assert (choice["text"], choice["finish_reason"]) == (r"Perhaps \boxed{5}.", "content_filter")

    asyncio.run(main())


def test_a_batch_tells_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with batching(tmp_path, refusing(0)) as client:
            batch = await ended(client, await submit(client, [line("a")]))
            choice = (await told(client, batch["output_file_id"]))["a"]["response"]["body"]["choices"][0]
            assert choice["message"]["refusal"] == NO

    asyncio.run(main())


@pytest.mark.parametrize("filtered", [False, True])
def test_withheld_samples_do_not_vote_unless_all_are(*, filtered: bool) -> None:
    asked = {"tts": {"strategy": "self_consistency", "n": 4, "return_candidates": True}}

    async def main() -> None:
        async with serving(refusing(0, 1, 2, filtered=filtered)) as client:
            whole = (await ask(client, **asked)).json()
            assert whole["choices"][0]["message"]["content"] == r"\boxed{42}"
            assert whole["tts"]["votes"] == [{"answer": "42", "count": 1, "weight": 1.0}]
            reasons = [candidate["finish_reason"] for candidate in whole["tts"]["candidates"]]
            assert reasons == ["content_filter" if filtered else "stop"] * 3 + ["stop"]
            assert [c.get("refusal") for c in whole["tts"]["candidates"]] == [None if filtered else NO] * 3 + [None]
        async with serving(refusing(0, 1, 2, 3, filtered=filtered)) as client:
            whole = (await ask(client, **asked)).json()
            choice = whole["choices"][0]
            if filtered:
                assert (choice["finish_reason"], whole["tts"]["answer"]) == ("content_filter", "5")
            else:
                assert (choice["message"]["refusal"], whole["tts"]["answer"]) == (NO, None)

    asyncio.run(main())


def test_the_sdk_and_a_trace_tell_both() -> None:
    async def main() -> None:
        async with (
            serving(refusing(0), settings=Settings(traces="full")) as client,
            AsyncClient(str(client.base_url), model="fake") as sdk,
        ):
            result = await sdk.chat("?")
            assert (result.choices[0].message.refusal, result.text) == (NO, "")
            async with sdk.stream("?") as stream:
                streamed = await stream.result()
            assert streamed.choices[0].message.refusal == NO
            assert result.tts is not None
            trace = await sdk.trace(result.tts.trace_id or "")
            assert [sample.refusal for call in trace.calls for sample in call.samples] == [NO]
        async with (
            serving(refusing(0, filtered=True)) as client,
            AsyncClient(str(client.base_url), model="fake") as sdk,
        ):
            assert (await sdk.chat("?")).choices[0].finish_reason == "content_filter"

    asyncio.run(main())


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "refusal": NO},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": NO}]},
        {"role": "assistant", "content": "", "refusal": NO, "tool_calls": None},
    ],
    ids=str,
)
def test_a_refusal_that_comes_back_is_what_the_model_said(turn: dict[str, Any]) -> None:
    seen: list[str] = []

    def script(request: FakeRequest) -> str:
        seen.append(request.text)
        return "ok"

    async def main() -> None:
        async with serving(FakeEngine(script)) as client:
            turns = [{"role": "user", "content": "?"}, turn, {"role": "user", "content": "Please."}]
            assert (await ask(client, messages=turns)).status_code == 200

    asyncio.run(main())
    assert seen[0].count(NO) == 1
