"""What servers that call themselves OpenAI-compatible really send, and how a client of this server hears it.

Each case is named after whom it was seen of.
"""

import asyncio
from typing import Any

import pytest
from says import BILL, USAGE, Frames, Says, frame, heard, over
from serving import ask
from upstream import Body

SAID = "The answer is 42."


def words(*, empty: Any = None, finish: Any = "stop") -> list[Body]:
    """The usual stream, with what each piece but the last says of its end."""
    pieces = [frame({"content": piece}, empty) for piece in ("The answer", " is 42", ".")]
    return [frame({"role": "assistant", "content": ""}, empty), *pieces, frame({}, finish)]


PLAIN: dict[str, Frames] = {
    "OpenAI": [*words(), BILL],
    "Ollama and SGLang: an empty finish reason on every piece": [*words(empty=""), BILL],
    "KoboldCpp: 'null' as a text": [*words(empty="null"), BILL],
    "vLLM: no finish reason until there is one": [
        {"choices": [{k: v for k, v in f["choices"][0].items() if k != "finish_reason" or v}]} for f in words()
    ]
    + [BILL],
    "Mistral and xAI: text beside the finish reason": [*words()[:-2], frame({"content": "."}, "stop"), BILL],
    "vLLM and LM Studio: the finish reason in a frame of its own": [*words()[:-1], frame({}, "stop"), BILL],
    "a finish reason that is told twice": [*words(), frame({}, "stop"), BILL],
    "a piece behind the finish reason": [*words()[:-2], frame({}, "stop"), words()[-2], BILL],
    "Gemini: no finish reason at all": [*words()[:-1], BILL],
    "TGI: eos_token": [*words(finish="eos_token"), BILL],
    "Bedrock: end_turn": [*words(finish="end_turn"), BILL],
    "gateways: end": [*words(finish="end"), BILL],
    "Vertex: capitals": [*words(finish="STOP"), BILL],
    "Azure: what its filter found of the prompt, with empty choices": [
        {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
        *words(),
        BILL,
    ],
    "Azure: a choice without a delta": [
        *words()[:-1],
        {"choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}, "content_filter_offsets": {}}]},
        frame({}, "stop"),
        BILL,
    ],
    "Azure: delta null at the end": [*words()[:-1], frame(None, "stop"), BILL],
    "MiniMax: choices null": [*words(), BILL | {"choices": None}],
    "DeepSeek: no choices beside the usage": [*words(), {"usage": USAGE}],
    "MiniMax: the whole message once more in the last frame": [
        *words()[:-1],
        {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": SAID}}]},
        BILL,
    ],
    "gateways: a whole message as the only frame": [
        {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": SAID}}], "usage": USAGE}
    ],
    "LiteLLM and Fireworks: the usage so far in each frame": [
        f | {"usage": USAGE | {"completion_tokens": min(i, 5)}} for i, f in enumerate([*words(), frame({})])
    ],
    "Groq: its usage in an extension": [*words()[:-1], words()[-1] | {"x_groq": {"id": "r", "usage": USAGE}}],
    "Moonshot: its usage in the last choice": [*words()[:-1], frame({}, "stop", usage=USAGE)],
    "OpenRouter: comments while it waits": [": OPENROUTER PROCESSING\n\n", *words(), BILL],
    "OpenRouter: a last choice that says nothing beside the usage": [
        *words(),
        frame({"role": "assistant", "content": ""}) | {"usage": USAGE},
    ],
    "gateways: null to keep the connection": ["data: null\n\n", *words()[:2], "data: null\n\n", *words()[2:], BILL],
    "SGLang: a role and tool_calls of null in each piece": [
        frame({"role": None, "content": piece, "tool_calls": None, "reasoning_content": None}, matched_stop=None)
        for piece in ("The answer", " is 42", ".")
    ]
    + [frame({"content": ""}, "stop", matched_stop=151645), BILL],
    "LM Studio: the role in each piece": [
        frame({"role": "assistant", "content": piece}) for piece in ("The answer", " is 42", ".")
    ]
    + [frame({}, "stop"), BILL],
    "Groq: an empty list of calls in each piece": [
        frame({"content": piece, "tool_calls": []}) for piece in ("The answer", " is 42", ".")
    ]
    + [frame({}, "stop"), BILL],
    "no index": [{"choices": [{k: v for k, v in f["choices"][0].items() if k != "index"}]} for f in words()] + [BILL],
    "Together: logprobs in another form that nobody asked for": [
        frame({"content": SAID}, logprobs={"tokens": ["a"], "token_logprobs": [-0.5]}),
        frame({}, "stop"),
        BILL,
    ],
    "Mistral: content as a list of parts": [
        frame({"content": [{"type": "text", "text": "The answer"}]}),
        frame({"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": " is 42."}]}),
        frame({"content": ""}, "stop"),
        BILL,
    ],
    "OpenRouter: counts with fractions": [*words(), BILL | {"usage": {n: v + 0.25 for n, v in USAGE.items()}}],
    "counts in quotes": [*words(), BILL | {"usage": {n: str(v) for n, v in USAGE.items()}}],
    "details of null": [
        *words(),
        BILL | {"usage": USAGE | {"prompt_tokens_details": None, "completion_tokens_details": {"reasoning": None}}},
    ],
    "llama.cpp: timings": [*words()[:-1], words()[-1] | {"timings": {"predicted_n": 5}}, BILL | {"timings": {}}],
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_answer_is_heard_whole(case: str) -> None:
    choice = heard(Says(says=PLAIN[case]))
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "stop")
    used = choice["usage"]
    assert (used["prompt_tokens"], used["completion_tokens"]) == (7, 5)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": "many"},
        {"prompt_tokens": 7, "completion_tokens": 1e300},
        {"cost": 0.1},
    ],
    ids=str,
)
def test_a_bill_that_cannot_be_read_costs_no_answer(usage: Body) -> None:
    choice = heard(Says(says=[*words(), BILL | {"usage": usage}]))
    assert choice["message"]["content"] == SAID
    assert choice["usage"]["completion_tokens"] == 3, "a token a piece"


def test_an_answer_that_is_no_stream_is_one_all_the_same() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}]}
    choice = heard(Says(whole=whole | {"usage": USAGE}))
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "stop")
    assert choice["usage"]["total_tokens"] == 12


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_an_answer_that_was_cut_says_so(reason: str) -> None:
    assert heard(Says(says=[*words(finish=reason), BILL]))["finish_reason"] == "length"


@pytest.mark.parametrize(
    "reason", ["content_filter", "SAFETY", "content_filter: RECITATION", "sensitive", "guardrail_intervened", "refusal"]
)
def test_an_answer_that_was_filtered_says_so(reason: str) -> None:
    choice = heard(Says(says=[*words(finish=reason), BILL]))
    assert (choice["message"]["content"], choice["finish_reason"]) == (SAID, "content_filter")


REASONED: dict[str, Frames] = {
    "DeepSeek, llama.cpp and SGLang: reasoning_content": [frame({"reasoning_content": w}) for w in ("I", " guess 7.")],
    "OpenRouter, Groq and Ollama: reasoning": [frame({"reasoning": w, "content": ""}) for w in ("I", " guess 7.")],
    "vLLM: both names": [frame({"reasoning": w, "reasoning_content": w}) for w in ("I", " guess 7.")],
    "OpenRouter: details beside it": [
        frame({"reasoning": "I guess 7.", "reasoning_details": [{"type": "reasoning.text", "text": "I guess 7."}]})
    ],
    "gateways: one name null": [frame({"reasoning": None, "reasoning_content": "I guess 7."})],
    "an object of another kind": [frame({"reasoning": {"effort": "low"}, "reasoning_content": "I guess 7."})],
    "Mistral: a part of the content": [
        frame({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": w}]}]})
        for w in ("I", " guess 7.")
    ],
    "Mistral: a thought as plain text": [frame({"content": [{"type": "thinking", "thinking": "I guess 7."}]})],
}


@pytest.mark.parametrize("case", REASONED)
def test_a_thought_is_heard_as_one(case: str) -> None:
    choice = heard(Says(says=[*REASONED[case], *words(), BILL]))
    assert (choice["message"]["reasoning"], choice["message"]["content"]) == ("I guess 7.", SAID)


FAILURES: dict[str, Frames] = {
    "OpenRouter: an error beside a choice": [
        *words()[:2],
        frame({"content": ""}, "error") | {"error": {"code": 502, "message": "Provider overloaded"}},
    ],
    "vLLM: an object that is an error": [{"object": "error", "message": "Provider overloaded", "code": 500}],
    "TGI: an error that is a text": [*words()[:2], {"error": "Provider overloaded", "error_type": "generation"}],
    "Anthropic: an event of type error": [
        *words()[:2],
        'event: error\ndata: {"type": "error", "error": {"message": "Provider overloaded"}}\n\n',
    ],
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_inside_of_a_stream_is_told(case: str) -> None:
    failing = Says(says=words())

    async def main() -> None:
        async with over(failing) as client:
            failing.says = FAILURES[case]
            answer = await ask(client)
            assert answer.status_code == 502
            assert "Provider overloaded" in answer.json()["error"]["message"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "reason", ["error", "network_error", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL"]
)
def test_a_finish_reason_that_is_a_failure_is_one(reason: str) -> None:
    failing = Says(says=words())

    async def main() -> None:
        async with over(failing) as client:
            failing.says = words(finish=reason)
            answer = await ask(client)
            assert (answer.status_code, reason.lower() in answer.text) == (502, True)

    asyncio.run(main())


@pytest.mark.parametrize(("says", "done"), [([], True), (words()[:1], True), (words()[:-1], False)], ids=str)
def test_a_stream_that_breaks_off_is_no_answer(says: Frames, *, done: bool) -> None:
    broken = Says(says=words())

    async def main() -> None:
        async with over(broken) as client:
            broken.says, broken.done = says, done
            assert (await ask(client)).status_code == 502

    asyncio.run(main())


def test_a_prompt_that_is_filtered_keeps_its_code() -> None:
    error = {"message": "The prompt triggered the content policy.", "code": "content_filter", "param": "prompt"}
    refusing = Says(says=words())

    async def main() -> None:
        async with over(refusing) as client:
            refusing.whole, refusing.status = {"error": error}, 400
            answer = await ask(client)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")

    asyncio.run(main())
