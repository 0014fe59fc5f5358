"""What becomes of each field of vLLM's requests: it is honoured, refused by name, or known to change nothing."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from serving import QUESTION, ask, serving

from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.schema.chat import ChatRequest
from tts_server.schema.completions import CompletionRequest
from tts_server.schema.fields import REFUSED, WITHOUT_EFFECT
from tts_server.schema.responses import ResponsesRequest
from tts_server.schema.tokenize import DetokenizeRequest, TokenizeRequest

FIELDS: dict[str, list[str]] = json.loads((Path(__file__).parents[2] / "data" / "vllm_fields.json").read_text())
MODELS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
SMALLEST: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}


@pytest.mark.parametrize("path", FIELDS)
def test_something_becomes_of_every_field_that_vllm_has(path: str) -> None:
    refused = REFUSED.keys() if path in SMALLEST else set()
    unknown = {*FIELDS[path]} - MODELS[path].model_fields.keys() - refused - WITHOUT_EFFECT
    assert not unknown, "honour them, refuse them in protocol_fields.REFUSED, or list them as WITHOUT_EFFECT"


@pytest.mark.real
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_list_of_vllms_fields_is_that_of_the_installed_vllm() -> None:
    pytest.importorskip("vllm")
    from vllm.entrypoints.openai.chat_completion import protocol as chat
    from vllm.entrypoints.openai.completion import protocol as completion
    from vllm.entrypoints.openai.responses import protocol as responses
    from vllm.entrypoints.serve.tokenize import protocol as tokenize

    requests = {
        "/v1/chat/completions": [chat.ChatCompletionRequest],
        "/v1/completions": [completion.CompletionRequest],
        "/v1/responses": [responses.ResponsesRequest],
        "/tokenize": [tokenize.TokenizeCompletionRequest, tokenize.TokenizeChatRequest],
        "/detokenize": [tokenize.DetokenizeRequest],
    }
    assert {
        path: sorted({field for c in classes for field in c.model_fields}) for path, classes in requests.items()
    } == FIELDS


@pytest.mark.parametrize("path", SMALLEST)
def test_what_is_refused_is_refused_by_name_unless_it_asks_for_nothing(path: str) -> None:
    async def main() -> None:
        async with serving() as client:
            for field, (neutral, why) in REFUSED.items():
                if field in MODELS[path].model_fields:
                    continue
                body = {"model": "fake", **SMALLEST[path]}
                error = (await client.post(path, json=body | {field: "x"})).json()["error"]
                assert (error["param"], error["code"]) == (field, "unsupported_parameter")
                assert error["message"].startswith(f"{field} is not supported: {why}")
                for value in neutral:
                    response = await client.post(path, json=body | {field: value})
                    assert response.status_code == 200, (field, value, response.text)

    asyncio.run(main())


def test_what_changes_nothing_is_accepted() -> None:
    async def main() -> None:
        async with serving() as client:
            body = {"model": "fake", **SMALLEST["/v1/chat/completions"], **dict.fromkeys(WITHOUT_EFFECT, "x")}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("tss", "the field is called tts"),
        ("TTS", "the field is called tts"),
        ("strategy", "it is a key of tts: {'tts': {'strategy': …}}"),
        ("return_candidates", "it is a key of tts: {'tts': {'return_candidates': …}}"),
        ("beam_width", "it is a key of tts: {'tts': {'beam_width': …}}"),
        ("selector", "it is a key of tts: {'tts': {'selector': …}}"),
        ("budget", "it is a key of tts: {'tts': {'budget': …}}"),
        ("deadline_s", "it is a key of tts.budget: {'tts': {'budget': {'deadline_s': …}}}"),
        ("extra_body", "SDKs send what is in it as fields of the request itself"),
    ],
)
def test_a_field_of_ours_in_the_wrong_place_is_refused_with_what_was_meant(field: str, meant: str) -> None:
    async def main() -> None:
        async with serving() as client:
            for path, smallest in SMALLEST.items():
                body = {"model": "fake", **smallest}
                error = (await client.post(path, json=body | {field: {"n": 4}})).json()["error"]
                assert (error["param"], error["code"]) == (field, "unsupported_parameter")
                assert meant in error["message"]
                assert (await client.post(path, json=body | {field: None})).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("field", ["thinking", "reasoning", "provider", "mode", "search", "top_a", "anything", "ts"])
def test_other_fields_stay_accepted(field: str) -> None:
    async def main() -> None:
        async with serving() as client:
            assert (await ask(client, **{field: {"a": 1}})).status_code == 200

    asyncio.run(main())


@pytest.mark.parametrize("path", SMALLEST)
def test_structured_outputs_hold_the_answer(path: str) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}

    async def said(client: Any, outputs: Any) -> str:
        body = {"model": "fake", **SMALLEST[path], "max_tokens": 100, "structured_outputs": outputs}
        if path == "/v1/responses":
            del body["max_tokens"]
        response = await client.post(path, json=body | {"tts": {"strategy": "self_consistency", "n": 3}})
        assert response.status_code == 200, response.text
        whole = response.json()
        match path:
            case "/v1/responses":
                text: str = next(item for item in whole["output"] if item["type"] == "message")["content"][0]["text"]
            case "/v1/completions":
                text = whole["choices"][0]["text"]
            case _:
                text = whole["choices"][0]["message"]["content"]
        assert whole["tts"]["votes"]
        return text

    async def main() -> None:
        async with serving() as client:
            assert await said(client, {"choice": ["yes", "no"]}) in ("yes", "no")
            for given in (schema, json.dumps(schema)):
                assert json.loads(await said(client, {"json": given})).keys() == {"x"}
            assert isinstance(json.loads(await said(client, {"json_object": True})), dict)

    asyncio.run(main())


def test_a_choice_that_is_none_has_no_vote() -> None:
    texts = ["maybe", "yes", "maybe", "no", "yes"]

    async def main() -> None:
        async with serving(FakeEngine(lambda request: texts[request.index])) as client:
            fields = {"structured_outputs": {"choice": ["yes", "no"]}, "tts": {"strategy": "self_consistency", "n": 5}}
            whole = (await ask(client, **fields)).json()
        assert [(vote["answer"], vote["count"]) for vote in whole["tts"]["votes"]] == [("yes", 2), ("no", 1)]

    asyncio.run(main())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_reasoning_is_left_out_where_it_is_not_wanted(path: str, stream: bool) -> None:
    def think(request: FakeRequest) -> str:
        return "<think>Aha.</think>It is 4."

    async def main() -> None:
        async with serving(FakeEngine(think)) as client:
            for wanted in (True, False):
                body = {"model": "fake", **SMALLEST[path], "stream": stream, "include_reasoning": wanted}
                text = (await client.post(path, json=body | {"tts": {"strategy": "self_consistency"}})).text
                assert ("Aha" in text) == wanted

    asyncio.run(main())
