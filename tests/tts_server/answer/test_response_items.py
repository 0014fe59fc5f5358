"""Items as they grow, where no strategy of ours tells its events in that order."""

from typing import Any

from strategies.core.contracts import TokenLogprob
from tts_server.answer.response_items import Output
from tts_server.answer.sample_text import Said, reasoning


def kinds(output: Output) -> list[str]:
    return [item["type"] for item in output.items]


def test_progress_behind_the_beginning_of_an_answer_is_an_item_beside_it() -> None:
    output = Output(encrypted=False)
    events = [*output.say(Said({"content": "Fo"})), *output.progress("a step\n"), *output.say(Said({"content": "ur."}))]
    events += output.end(cut=False)
    message, beside = output.items
    assert message["content"][0]["text"] == "Four."
    assert beside["summary"] == [{"type": "summary_text", "text": "a step\n"}]
    assert [e["output_index"] for e in events if e["type"] == "response.output_item.done"] == [1, 0]


def test_a_thought_after_an_answer_begins_an_item() -> None:
    output = Output(encrypted=False)
    for said in (reasoning("one"), Said({"content": "x"}), reasoning("two"), Said({"content": "y"})):
        list(output.say(said))
    list(output.end(cut=False))
    assert kinds(output) == ["reasoning", "message", "reasoning", "message"]


def test_logprobs_without_text_wait_for_the_message() -> None:
    output, one, two = Output(encrypted=False), TokenLogprob("a", -1.0), TokenLogprob("b", -2.0)
    assert list(output.say(Said({"content": ""}, (one,)))) == []
    list(output.say(Said({"content": "ab"}, (two,))))
    list(output.end(cut=False))
    (message,) = output.items
    assert [p["token"] for p in message["content"][0]["logprobs"]] == ["a", "b"]


def test_an_answer_of_nothing_but_calls_has_no_message() -> None:
    output = Output(encrypted=False)
    call: dict[str, Any] = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    list(output.say(Said({"content": ""}, (TokenLogprob("a", -1.0),))))
    list(output.say(Said({"tool_calls": [call]})))
    list(output.end(cut=False))
    assert kinds(output) == ["function_call"]


def test_only_what_is_done_is_told() -> None:
    output = Output(encrypted=False)
    list(output.progress("a step\n"))
    assert output.items == []
    list(output.end(cut=True))
    assert [item["status"] for item in output.items] == ["incomplete"]
