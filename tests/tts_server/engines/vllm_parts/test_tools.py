"""vLLM's own parsers of tool calls, on a tokenizer, without an engine."""

import asyncio
from typing import Any

import pytest
from serving import ask, frames, serving
from tiny_model import tiny_tokenizer

from tts_server.engines.fake import FakeEngine
from tts_server.engines.vllm import VLLMEngine
from tts_server.engines.vllm_parts.tools import VLLMFormat, check_name
from tts_server.engines.vllm_parts.wire import sampling_params
from tts_server.errors import EngineUnavailable
from tts_server.forms.form import Form, gather
from tts_server.forms.json_schema import Schema
from tts_server.forms.tools import Tools, arguments_of

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")]

POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["x"]}
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": POINT}},)
ONE = [("add", {"x": 1, "y": "two words"})]
XML = "<function=add>\n<parameter=x>\n1\n</parameter>\n<parameter=y>\ntwo words\n</parameter>\n</function>"
KEYS = "<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n<arg_key>y</arg_key>\n<arg_value>two words</arg_value>"
JSON = '{"name": "add", "arguments": {"x": 1, "y": "two words"}}'
INVOKE = '<invoke name="add">\n<parameter name="x">1</parameter>\n<parameter name="y">two words</parameter>\n</invoke>'
KIMI = (
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
    '{"x": 1, "y": "two words"}<|tool_call_end|><|tool_calls_section_end|>'
)
WRITTEN = [
    ("hermes", f"<tool_call>\n{JSON}\n</tool_call>"),
    ("qwen3_coder", f"<tool_call>\n{XML}\n</tool_call>"),
    ("qwen3_xml", f"<tool_call>\n{XML}\n</tool_call>"),
    ("step3p5", f"<tool_call>\n{XML}\n</tool_call>"),
    ("glm45", f"<tool_call>add\n{KEYS}\n</tool_call>"),
    ("minimax_m2", f"<minimax:tool_call>\n{INVOKE}\n</minimax:tool_call>"),
    ("kimi_k2", KIMI),
    ("granite", f"<|tool_call|>[{JSON}]"),
    ("granite4", f"<tool_call>{JSON}</tool_call>"),
    ("granite-20b-fc", f"<function_call> {JSON}"),
    ("phi4_mini_json", f"functools[{JSON}]"),
    ("xlam", f"[{JSON}]"),
    ("pythonic", '[add(x=1, y="two words")]'),
    ("internlm", f"<|action_start|><|plugin|>{JSON}<|action_end|>"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    pytest.importorskip("vllm")
    # As models have them whose calls begin with a token of their own.
    made = tiny_tokenizer()
    made.add_tokens(["<tool_call>", "</tool_call>"])
    return made


@pytest.mark.parametrize(("name", "text"), WRITTEN)
def test_a_call_is_read_as_its_model_writes_it(tokenizer: Any, name: str, text: str) -> None:
    form = VLLMFormat(name, tokenizer)
    calls, content = gather(form.reader(TOOLS), text)
    assert ([(call.name, arguments_of(call)) for call in calls], content.strip()) == (ONE, "")
    assert gather(form.reader(TOOLS), "In words.") == ([], "In words.")
    assert gather(form.reader(TOOLS), "") == ([], "")


def test_words_before_a_call_stay_content(tokenizer: Any) -> None:
    calls, content = gather(VLLMFormat("qwen3_coder", tokenizer).reader(TOOLS), f"I add.\n<tool_call>\n{XML}")
    assert ([call.name for call in calls], content.strip()) == (["add"], "I add.")


def test_what_cannot_be_read_and_what_calls_nobody_is_content_without_a_vote(tokenizer: Any) -> None:
    form = Form(None, None, Tools(TOOLS), {"add": Schema(POINT, "p")}, VLLMFormat("granite4", tokenizer))
    for text in (
        '<tool_call>{"name": "add", "argum',
        JSON.join(("<tool_call>", "</tool_call>")).replace("add", "sub"),
        '<tool_call>{"name": "add", "arguments": {"x": "one"}}</tool_call>',
    ):
        reading = form.read(text)
        assert reading
        assert reading.answer is None
    assert form.read("In words.") is None
    right = form.read(f"<tool_call>{JSON}</tool_call>")
    assert right
    assert right.answer == '[{"arguments":{"x":1,"y":"two words"},"name":"add"}]'
    marked = VLLMFormat("pythonic", tokenizer)
    assert [marked.is_broken(text) for text in ("[sub(x=1)]", "In words.")] == [True, False]


def test_a_parser_that_fails_on_an_answer_does_not_fail_the_request(tokenizer: Any) -> None:
    cut = '<|action_start|><|plugin|>{"name": "add", "parameters": {"x": <|action_end|>'
    assert gather(VLLMFormat("internlm", tokenizer).reader(TOOLS), cut) == ([], cut)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openai", "vLLM's 'openai' reads no whole answers"),
        ("deepseek_v3", "vLLM's 'deepseek_v3' does not go with the model: .*tokens in the tokenizer"),
    ],
)
def test_a_parser_that_does_not_go_with_the_model_is_one_sentence(tokenizer: Any, name: str, said: str) -> None:
    with pytest.raises(EngineUnavailable, match=f"tool_parser: {said}"):
        VLLMFormat(name, tokenizer)


def test_an_unknown_parser_stops_the_start_before_anything_is_loaded() -> None:
    pytest.importorskip("vllm")
    check_name("kimi_k2")
    with pytest.raises(EngineUnavailable, match=r"vLLM has no 'qwen9'; it has .*hermes.*qwen3_coder"):
        asyncio.run(VLLMEngine("nowhere", name="x", tool_parser="qwen9").start())


def test_control_tokens_are_asked_for_where_the_parser_needs_them(tokenizer: Any) -> None:
    class Foreign(FakeEngine):
        call_format = VLLMFormat("qwen3_coder", tokenizer)

    seen: list[Any] = []

    def say(request: Any) -> str:
        seen.append(sampling_params(request.sampling, {}, 100))
        return f"<tool_call>\n{XML}\n</tool_call>"

    async def main() -> None:
        async with serving(Foreign(say)) as client:
            body = (await ask(client, tools=list(TOOLS))).json()
            chunks = await frames(client, tools=list(TOOLS))
            await ask(client)
        assert body["choices"][0]["finish_reason"] == "tool_calls"
        told = body["choices"][0]["message"]["tool_calls"][0]["function"]
        assert told["name"] == "add"
        streamed = [d for c in chunks for d in c["choices"][0]["delta"].get("tool_calls", ())]
        assert [d["function"] for d in streamed] == [told]
        assert [params.skip_special_tokens for params in seen] == [False, False, True]

    asyncio.run(main())
    assert not VLLMFormat("pythonic", tokenizer).special_tokens
