"""JSON answers and calls of tools under search: who votes, what comes back, in a body as in a stream."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from serving import ask, content, frames, serving

from prm import FakePRM
from strategies.core.contracts import Reading
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine, FakeRequest
from tts_server.forms.call_formats import Tool, names_of
from tts_server.forms.call_readers import Piece, Reader
from tts_server.forms.form import Form
from tts_server.forms.json_schema import Schema
from tts_server.forms.tools import Tools

INTEGER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
JSON = {"response_format": {"type": "json_schema", "json_schema": {"name": "point", "schema": INTEGER}}}
FORMED = ["single", "best_of_n", "self_consistency", "confidence"]


def tool(name: str, parameters: Any = INTEGER) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = {"tools": [tool("add"), tool("find")]}


def call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def saying(*texts: str) -> FakeEngine:
    """An engine whose sample number i says the text number i."""
    return FakeEngine(lambda request: texts[request.index])


def search(strategy: str, n: int, **options: Any) -> dict[str, Any]:
    return {"tts": {"strategy": strategy, "n": n, "return_candidates": True, **options}}


async def both(engine: FakeEngine, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same request's body and chunks, which tell the same."""
    async with serving(engine, [FakePRM()]) as client:
        response = await ask(client, seed=1, **fields)
        assert response.status_code == 200, response.text
        plain, seen = response.json(), await frames(client, seed=1, **fields)
    for choice in plain["choices"]:
        said, mine = choice["message"], choice["index"]
        assert content(seen, mine) == (said["content"] or "")
        assert gathered(seen, mine) == [c["function"] for c in said.get("tool_calls", [])]
        ends = [c["choices"][0]["finish_reason"] for c in seen if c["choices"][0]["index"] == mine]
        assert [end for end in ends if end] == [choice["finish_reason"]]
    return plain, seen


def gathered(seen: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    """The calls of a stream, as clients put them together."""
    calls: list[dict[str, Any]] = []
    for chunk in seen:
        choice = chunk["choices"][0]
        for delta in choice["delta"].get("tool_calls", ()) if choice["index"] == index else ():
            if "id" in delta:
                assert delta["index"] == len(calls)
                assert (delta["type"], delta["id"][:5]) == ("function", "call_")
                calls.append(dict(delta["function"]))
            else:
                assert delta["index"] == len(calls) - 1
                calls[-1]["arguments"] += delta["function"]["arguments"]
    return calls


def test_json_votes_by_its_value_and_what_breaks_the_schema_has_no_vote() -> None:
    texts = ['{"x": "4"}', '{"x": 3}', '{"x": "4"}', '{ "x": 3.0 }', '{"x": 4}', "the answer is 4", "4", '{"x": 4']

    async def main() -> None:
        plain, _ = await both(saying(*texts), **JSON, **search("self_consistency", 8))
        assert plain["choices"][0]["message"]["content"] == '{"x": 3}'
        assert plain["tts"]["votes"] == [
            {"answer": '{"x":3}', "count": 2, "weight": 2.0},
            {"answer": '{"x":4}', "count": 1, "weight": 1.0},
        ]
        answers = [c["answer"] for c in plain["tts"]["candidates"]]
        assert answers == [None, '{"x":3}', None, '{"x":3}', '{"x":4}', None, None, None]

    asyncio.run(main())


def test_a_high_score_does_not_save_what_breaks_the_schema() -> None:
    texts = ['{"x": "9"}', '{"x": 3}', '{"y": 3}', '{"x": 5}']
    scores = dict(zip(texts, (0.9, 0.2, 0.8, 0.4), strict=True))
    prm = FakePRM(lambda question, steps: [scores[steps[0]]] * len(steps))

    async def main() -> None:
        async with serving(saying(*texts), [prm]) as client:
            for selector in ("best", "weighted"):
                asked = search("best_of_n", 4, selector=selector)
                seen = (await ask(client, **JSON, **asked, n=3)).json()
                said = [choice["message"]["content"] for choice in seen["choices"]]
                assert said == ['{"x": 5}', '{"x": 3}', '{"x": "9"}']

    asyncio.run(main())


def test_calls_vote_by_name_and_arguments() -> None:
    texts = [
        call("add", '{"x": 1, }'),
        call("find", '{"x": 2}'),
        call("add", '{"x": "1"}'),
        "I think the answer is 7.",
        call("nobody", '{"x": 1}'),
        call("add", '{"x": 5}'),
        call("find", '{ "x":2.0 }'),
        call("add", "{}"),
    ]

    async def main() -> None:
        plain, seen = await both(saying(*texts), **TOOLS, **search("self_consistency", 8))
        (choice,) = plain["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] is None
        (made,) = choice["message"]["tool_calls"]
        assert made["function"] == {"name": "find", "arguments": '{"x": 2}'}
        assert (made["type"], made["id"][:5]) == ("function", "call_")
        assert {vote["answer"]: vote["count"] for vote in plain["tts"]["votes"]} == {
            '[{"arguments":{"x":2},"name":"find"}]': 2,
            "7": 1,
            '[{"arguments":{"x":5},"name":"add"}]': 1,
        }
        told = content(seen, key="reasoning")
        assert "gives no answer: the arguments of add do not follow its schema ($.x: '1' is not of type" in told
        assert "gives no answer: the arguments of add are not a JSON object" in told

    asyncio.run(main())


def test_several_calls_have_no_order_and_can_be_forbidden() -> None:
    one, two = call("add", '{"x": 1}'), call("find", '{"x": 2}')

    async def main() -> None:
        texts = [f"First.\n{one}\n{two}", two + one, two]
        plain, _ = await both(saying(*texts), **TOOLS, **search("self_consistency", 3))
        assert [vote["count"] for vote in plain["tts"]["votes"]] == [2, 1]
        message = plain["choices"][0]["message"]
        assert message["content"] == "First."
        assert [c["function"]["name"] for c in message["tool_calls"]] == ["add", "find"]
        assert len({c["id"] for c in message["tool_calls"]}) == 2
        asked = TOOLS | {"parallel_tool_calls": False}
        plain, _ = await both(saying(*texts), **asked, **search("self_consistency", 3))
        assert [c["function"]["name"] for c in plain["choices"][0]["message"]["tool_calls"]] == ["find"]

    asyncio.run(main())


@pytest.mark.parametrize("strategy", FORMED)
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"add", "find"}), ({"type": "function", "function": {"name": "find"}}, {"find"})],
    ids=["required", "named"],
)
def test_a_call_that_has_to_be_made_is_made_under_every_strategy(strategy: str, choice: Any, names: set[str]) -> None:
    async def main() -> None:
        asked = {} if strategy == "single" else {"n": 4}
        plain, _ = await both(FakeEngine(), **TOOLS, tool_choice=choice, tts={"strategy": strategy, **asked})
        (said,) = plain["choices"]
        assert said["finish_reason"] == "tool_calls"
        (made,) = said["message"]["tool_calls"]
        assert made["function"]["name"] in names
        assert json.loads(made["function"]["arguments"]).keys() == {"x"}
        assert said["message"]["content"] is None

    asyncio.run(main())


@pytest.mark.parametrize("strategy", FORMED)
def test_json_comes_under_every_strategy(strategy: str) -> None:
    async def main() -> None:
        asked = {} if strategy == "single" else {"n": 4}
        plain, _ = await both(FakeEngine(), **JSON, n=2, tts={"strategy": strategy, **asked})
        for said in plain["choices"]:
            assert json.loads(said["message"]["content"]).keys() == {"x"}

    asyncio.run(main())


def test_a_call_that_was_cut_says_so() -> None:
    async def main() -> None:
        engine = saying(call("add", '{"x": 1234567890}'))
        plain, _ = await both(engine, **TOOLS, max_tokens=14)
        (said,) = plain["choices"]
        assert said["finish_reason"] == "length"
        (made,) = said["message"]["tool_calls"]
        assert made["function"]["arguments"].startswith('{"x":')

    asyncio.run(main())


def test_without_a_choice_to_call_calls_are_text() -> None:
    async def main() -> None:
        text = call("add", '{"x": 1}')
        seen: list[Any] = []

        def script(request: FakeRequest) -> str:
            seen.append(request.tools)
            return text

        for fields in ({}, TOOLS | {"tool_choice": "none"}):
            plain, _ = await both(FakeEngine(script), **fields)
            assert plain["choices"][0]["message"]["content"] == text
            assert plain["choices"][0]["finish_reason"] == "stop"
        assert set(seen) == {()}

    asyncio.run(main())


def test_turns_with_calls_and_results_keep_their_roles() -> None:
    made = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    turns = [
        {"role": "user", "content": "Add one."},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]

    def script(request: FakeRequest) -> str:
        assert [m["role"] for m in request.messages] == ["user", "assistant", "tool"]
        assert request.messages[1]["tool_calls"] == [made]
        assert '"name": "add"' in request.text
        return "It is 2."

    async def main() -> None:
        plain, _ = await both(FakeEngine(script), **TOOLS, messages=turns)
        assert plain["choices"][0]["message"]["content"] == "It is 2."
        assert "tool_calls" not in plain["choices"][0]["message"]

    asyncio.run(main())


THOUGHT = "<think>\nIs it \\boxed{9}?\n\nNo.\n</think>\n\n"


@pytest.mark.parametrize("opening", ["", "<think>\n"], ids=["the model opens", "the template opens"])
@pytest.mark.parametrize("fields", [{}, search("best_of_n", 3)], ids=["single", "search"])
def test_a_thought_is_reasoning_and_has_no_vote(opening: str, fields: dict[str, Any]) -> None:
    steps: list[Any] = []

    def score(question: str, given: Any) -> list[float]:
        steps.append(given)
        return [0.5] * len(given)

    async def main() -> None:
        text = (THOUGHT + "So \\boxed{4}.").removeprefix(opening)
        async with serving(FakeEngine(lambda request: text, opening=opening), [FakePRM(score)]) as client:
            plain = (await ask(client, logprobs=True, **fields)).json()
            seen = await frames(client, logprobs=True, **fields)
        (choice,) = plain["choices"]
        message = choice["message"]
        assert message["content"] == content(seen) == "So \\boxed{4}."
        assert message["reasoning"] == message["reasoning_content"] == "Is it \\boxed{9}?\n\nNo."
        assert content(seen, key="reasoning").endswith("Is it \\boxed{9}?\n\nNo.")
        assert content(seen, key="reasoning") == content(seen, key="reasoning_content")
        assert "".join(t["token"] for t in choice["logprobs"]["content"]).strip() == "So \\boxed{4}."
        told = [p["token"] for c in seen if c["choices"][0]["logprobs"] for p in c["choices"][0]["logprobs"]["content"]]
        assert told == [t["token"] for t in choice["logprobs"]["content"]]
        used = plain["usage"]
        assert used["completion_tokens_details"]["reasoning_tokens"] > used["completion_tokens"] * 0.4
        if fields:
            assert plain["tts"]["answer"] == "4"
            # What scores the solution sees how it was thought.
            assert steps[0] == ("<think>\nIs it \\boxed{9}?", "No.\n</think>", "So \\boxed{4}.")

    asyncio.run(main())


def test_a_thought_without_an_end_is_no_answer() -> None:
    async def main() -> None:
        texts = ["<think>It is \\boxed{9}.", "<think>It is \\boxed{9}.", "<think>Hm.</think>\\boxed{4}"]
        plain, _ = await both(saying(*texts), **search("self_consistency", 3))
        assert plain["tts"]["answer"] == "4"
        assert [c["answer"] for c in plain["tts"]["candidates"]] == [None, None, "4"]
        plain, _ = await both(saying("<think>It is 9"))
        message = plain["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == ("", "It is 9")

    asyncio.run(main())


def test_a_step_search_keeps_the_opened_thought() -> None:
    async def main() -> None:
        def script(request: FakeRequest) -> str:
            done = request.text.partition("<assistant>")[2]
            return "".join(["I think.\n\n", "So.\n\n", "</think>\n\n", "\\boxed{4}"][done.count("\n\n") :])

        engine = FakeEngine(script, opening="<think>\n")
        plain, _ = await both(engine, tts={"strategy": "beam_search", "n": 2, "beam_width": 1})
        message = plain["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == ("\\boxed{4}", "I think.\n\nSo.")

    asyncio.run(main())


def test_calls_and_json_stand_behind_a_thought() -> None:
    async def main() -> None:
        plain, _ = await both(saying("<think>Add.</think>\n" + call("add", '{"x": 1}')), **TOOLS)
        message = plain["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == (None, "Add.")
        assert message["tool_calls"][0]["function"]["name"] == "add"
        texts = ["<think>{}</think>" + '{"x": 1}', '<think>{"x": 2}']
        plain, _ = await both(saying(*texts), **JSON, **search("self_consistency", 2))
        assert [c["answer"] for c in plain["tts"]["candidates"]] == ['{"x":1}', None]

    asyncio.run(main())


class Unconstrained(FakeEngine):
    constrains = False


class Unread(FakeEngine):
    tool_format = None


class Arrows:
    """Reads `add -> {"x": 1}`, once a whole answer is there."""

    special_tokens = True

    def __init__(self, tools: Sequence[Tool] = ()) -> None:
        self._names = names_of(tools)
        self._text = ""

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return Arrows(tools)

    def is_broken(self, content: str) -> bool:
        return "->" in content

    def call_or_answer(self, parameters: Mapping[str, Schema], answer: Schema, *, parallel: bool) -> None:
        """It has no grammar."""

    def push(self, text: str) -> Iterator[Piece]:
        self._text += text
        return iter(())

    def end(self) -> Iterator[Piece]:
        name, _, arguments = self._text.partition(" -> ")
        yield Piece(call=0, name=name, arguments=arguments) if name in self._names else Piece(self._text)


class Foreign(FakeEngine):
    """An engine that has a format of its own."""

    call_format = Arrows()


def test_a_format_of_the_engines_own_is_read_and_asked_for_with_its_control_tokens() -> None:
    texts = ['add -> {"x": 1}', 'nobody -> {"x": 2}', 'nobody -> {"x": 2}', "In words.", 'add -> {"x":1}', "add -> {"]
    asked: list[FakeRequest] = []

    def say(request: FakeRequest) -> str:
        asked.append(request)
        return texts[request.index]

    async def main() -> None:
        plain, _ = await both(Foreign(say), **TOOLS, **search("self_consistency", 6))
        assert plain["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 1}'}
        assert plain["choices"][0]["finish_reason"] == "tool_calls"
        made = '[{"arguments":{"x":1},"name":"add"}]'
        assert [c["answer"] for c in plain["tts"]["candidates"]][:3] == [made, None, None]
        assert [c["answer"] for c in plain["tts"]["candidates"]][4:] == [made, None]
        assert {request.sampling.special_tokens for request in asked} == {True}
        asked.clear()
        forced = {"tool_choice": {"type": "function", "function": {"name": "add"}}}
        texts[0] = '{"x": 3}'
        plain, _ = await both(Foreign(say), **TOOLS, **forced)
        assert plain["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"x": 3}'
        assert {request.sampling.special_tokens for request in asked} == {False}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("engine", "fields", "param"),
    [
        (Unconstrained, JSON, "response_format"),
        (Unconstrained, TOOLS | {"tool_choice": "required"}, "tool_choice"),
        (Unread, TOOLS, "tools"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(engine: type[FakeEngine], fields: dict[str, Any], param: str) -> None:
    async def main() -> None:
        async with serving(engine()) as client:
            response = await ask(client, **fields)
            assert response.status_code == 400
            error = response.json()["error"]
            assert (error["param"], error["code"]) == (param, "unsupported_parameter")
            assert (await ask(client, **TOOLS, tool_choice="none")).status_code == 200

    asyncio.run(main())


def test_a_reading_says_what_is_wrong() -> None:
    form = Form(JSON["response_format"], Schema(INTEGER, "f"))
    assert form.read('{"x": 1}') == Reading('{"x":1}')
    wrong = form.read("{")
    assert wrong
    assert wrong.fault
    assert wrong.fault.startswith("it is not JSON (")
    must = Form(tools=Tools((tool("add"),), "required"), parameters={"add": Schema(INTEGER, "f")})
    assert must.read("[]") == Reading(None, "it calls no tool")
    assert Form(tools=Tools((tool("add"),)), parameters={"add": Schema(INTEGER, "f")}).read("plain") is None
    choice = Form({"type": "choice", "choice": ["yes", "no"]})
    assert choice.read("<think>Hm.</think> yes") == Reading("yes")
    assert choice.read("maybe") == Reading(None, "it is none of the choices")
    assert Form({"type": "regex", "regex": "[0-9]+"}).read("12") == Reading("12")
    assert Form({"type": "structural_tag", "format": {}}).read("In words.") is None


BOTH = TOOLS | JSON


def test_with_tools_and_a_format_an_answer_is_a_call_or_in_the_format() -> None:
    texts = [call("add", '{"x": 1}'), '{"x": 4}', "In words.", '{"x": "4"}', '{ "x": 4.0 }', call("find", '{"x": "2"}')]

    async def main() -> None:
        plain, _ = await both(saying(*texts), **BOTH, **search("self_consistency", 6))
        assert plain["choices"][0]["message"]["content"] == '{"x": 4}'
        assert plain["choices"][0]["finish_reason"] == "stop"
        made = '[{"arguments":{"x":1},"name":"add"}]'
        assert [c["answer"] for c in plain["tts"]["candidates"]] == [made, '{"x":4}', None, None, '{"x":4}', None]
        plain, _ = await both(saying(*texts[:1]), **BOTH)
        (said,) = plain["choices"]
        assert said["finish_reason"] == "tool_calls"
        assert said["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x": 1}'}

    asyncio.run(main())


def test_the_engine_is_held_to_a_call_or_an_answer() -> None:
    asked: list[Any] = []

    def say(request: FakeRequest) -> str:
        asked.append(request.sampling.structured)
        return '{"x": 1}'

    async def structured(engine: FakeEngine, settings: Settings | None = None, **fields: Any) -> Any:
        asked.clear()
        async with serving(engine, settings=settings) as client:
            response = await ask(client, **BOTH, **fields)
            assert response.status_code == 200, response.text
        return asked[0]

    async def main() -> None:
        hermes = await structured(FakeEngine(say))
        answer, calls = hermes["format"]["elements"]
        assert (hermes["type"], answer["json_schema"]) == ("structural_tag", INTEGER)
        begins = [tag["begin"] for tag in calls["tags"]]
        assert begins == [f'<tool_call>\n{{"name": "{name}", "arguments": ' for name in ("add", "find")]
        assert [tag["content"]["json_schema"] for tag in calls["tags"]] == [INTEGER, INTEGER]
        assert not calls["stop_after_first"]
        alone = await structured(FakeEngine(say), parallel_tool_calls=False)
        assert alone["format"]["elements"][1]["stop_after_first"]
        llama = await structured(FakeEngine(say), Settings(tool_parser="llama3_json"))
        branches = llama["json_schema"]["schema"]["anyOf"]
        assert branches[-1] == INTEGER
        assert [branch["properties"]["name"]["enum"] for branch in branches[:-1]] == [["add"], ["find"]]
        assert await structured(Foreign(say)) is None
        must = await structured(FakeEngine(say), tool_choice="required")
        assert must["json_schema"]["name"] == "tool_calls"
        assert await structured(FakeEngine(say), tool_choice="none") == JSON["response_format"]

    asyncio.run(main())


@pytest.mark.parametrize("strategy", FORMED)
@pytest.mark.parametrize(("question", "calls"), [("Use find for me.", True), ("What is it?", False)])
def test_a_call_or_an_answer_comes_under_every_strategy(strategy: str, question: str, calls: bool) -> None:
    async def main() -> None:
        asked = {} if strategy == "single" else {"n": 4}
        messages = [{"role": "user", "content": question}]
        plain, _ = await both(FakeEngine(), **BOTH, messages=messages, tts={"strategy": strategy, **asked})
        message = plain["choices"][0]["message"]
        if calls:
            assert message["tool_calls"][0]["function"]["name"] == "find"
        else:
            assert json.loads(message["content"]).keys() == {"x"}
            assert "tool_calls" not in message

    asyncio.run(main())


def item(key: str, kind: str, where: str = "$defs") -> dict[str, Any]:
    definition = {"type": "object", "properties": {key: {"type": kind}}, "required": [key]}
    return {"properties": {"item": {"$ref": f"#/{where}/Item"}}, "required": ["item"], where: {"Item": definition}}


@pytest.mark.parametrize("where", ["$defs", "definitions"])
@pytest.mark.parametrize("seed", range(4))
def test_each_tool_is_called_with_its_own_fields(where: str, seed: int) -> None:
    fields = {"ship": ("sku", "string"), "bill": ("cents", "integer")}
    tools = [tool(name, item(*own, where)) for name, own in fields.items()]

    async def main() -> None:
        async with serving() as client:
            for choice in ("required", {"type": "function", "function": {"name": "bill"}}):
                said = (await ask(client, tools=tools, tool_choice=choice, seed=seed)).json()["choices"][0]
                function = said["message"]["tool_calls"][0]["function"]
                assert json.loads(function["arguments"])["item"].keys() == {fields[function["name"]][0]}

    asyncio.run(main())
