"""Texts with the plain openai package against a server as its user starts it."""

from collections.abc import Iterator

import openai
import pytest
from patience import NEVER_S
from served import served

PROMPT = "What is 2 + 2?"


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        served("--engine", "fake", "--prm", "fake", "--log-level", "warning") as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client,
    ):
        yield client


def test_a_text_its_logprobs_and_its_usage(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="fake", prompt=PROMPT, max_tokens=5, logprobs=2, echo=True, seed=1)
    (choice,) = reply.choices
    assert choice.text.startswith(PROMPT)
    assert choice.finish_reason == "length"
    assert choice.logprobs
    assert choice.logprobs.tokens
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs
    assert choice.logprobs.token_logprobs[0] is None
    assert reply.usage
    assert reply.usage.completion_tokens == 5
    assert len(choice.logprobs.tokens) == reply.usage.total_tokens


def test_several_prompts_as_a_stream(client: openai.OpenAI) -> None:
    fields = {"model": "fake", "prompt": [PROMPT, "And 3 + 3?"], "n": 2, "max_tokens": 12, "seed": 3}
    whole = client.completions.create(**fields)  # type: ignore[call-overload]
    texts = [""] * 4
    *chunks, last = client.completions.create(  # type: ignore[call-overload]
        **fields, stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]
    assert last.usage == whole.usage


def test_a_strategy_by_alias_and_by_name(client: openai.OpenAI) -> None:
    for model, extra in (("fake@best_of_n", {}), ("fake", {"tts": {"strategy": "best_of_n", "n": 8}})):
        reply = client.completions.create(model=model, prompt=PROMPT, max_tokens=100, seed=2, extra_body=extra)
        told = (reply.model_extra or {})["tts"]
        assert (told["strategy"], told["samples"]) == ("best_of_n", 8)
        assert reply.choices[0].text.endswith(f"\\boxed{{{told['answer']}}}.")


def test_what_is_not_honoured_names_itself(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="fake", prompt=PROMPT, suffix="x")
    assert (caught.value.param, caught.value.code) == ("suffix", "unsupported_parameter")
