"""`/tokenize`, `/detokenize` and `/tokenizer_info`, as vLLM's server has them."""

import asyncio
from typing import Any

import pytest
from serving import serving

from strategies.core.contracts import Prompt
from tts_server.engines.fake import FakeEngine, encode, pieces, render

MESSAGES = [{"role": "user", "content": "What is it?"}]


def posted(path: str, engine: FakeEngine | None = None, **fields: Any) -> tuple[int, Any]:
    async def main() -> tuple[int, Any]:
        async with serving(engine) as client:
            response = await client.post(path, json=fields)
            return response.status_code, response.json()

    return asyncio.run(main())


def test_a_text_and_back() -> None:
    text = "Words, and more ☃ words."
    ids = list(encode(text))
    expected = {"count": len(ids), "max_model_len": 32768, "tokens": ids, "token_strs": None}
    assert posted("/tokenize", prompt=text) == (200, expected)
    assert posted("/tokenize", model="fake@best_of_n", prompt=text, add_special_tokens=False) == (200, expected)
    strs = posted("/tokenize", prompt=text, return_token_strs=True)[1]["token_strs"]
    assert strs == pieces(text)
    assert posted("/detokenize", tokens=ids) == (200, {"prompt": text})
    assert posted("/detokenize", model="fake", tokens=[]) == (200, {"prompt": ""})
    assert posted("/tokenize", prompt="")[1]["count"] == 0


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"tools": [{"type": "function", "function": {"name": "f", "description": "d"}}]},
    ],
    ids=str,
)
def test_a_chat_is_rendered_by_the_models_template(template: dict[str, Any]) -> None:
    status, body = posted("/tokenize", messages=MESSAGES, return_token_strs=True, **template)
    assert status == 200
    assert "".join(body["token_strs"]) == render(Prompt(tuple(MESSAGES), template=template))


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"messages": MESSAGES, "chat_template": "x"}, "chat_template"),
        ("/tokenize", {"prompt": "a", "continue_final_message": True}, "continue_final_message"),
        (
            "/tokenize",
            {"messages": MESSAGES, "continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [200]}, "tokens"),
    ],
)
def test_what_is_not_a_request_is_refused_by_name(path: str, fields: dict[str, Any], param: str) -> None:
    status, body = posted(path, **fields)
    assert (status, body["error"]["param"]) == (400, param)


def test_another_model_is_not_found() -> None:
    for path, fields in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": []})):
        status, body = posted(path, model="other", **fields)
        assert (status, body["error"]["code"]) == (404, "model_not_found")


def test_an_engine_without_token_ids_says_so() -> None:
    for path, fields in (("/tokenize", {"messages": MESSAGES}), ("/detokenize", {"tokens": [1]})):
        status, body = posted(path, FakeEngine(continues=False), **fields)
        assert (status, body["error"]["code"]) == (400, "unsupported_parameter")


def test_the_tokenizer_tells_its_control_tokens() -> None:
    async def main() -> None:
        async with serving() as client:
            told = (await client.get("/tokenizer_info")).json()
            assert told["eos_token"]
            assert {"tokenizer_class", "bos_token", "chat_template"} <= set(told)

    asyncio.run(main())
