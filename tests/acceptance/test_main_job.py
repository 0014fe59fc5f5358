"""The main job as its user does it: `tts-server serve` on the real engine, asked with the plain openai package."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from patience import NEVER_S
from served import served

pytestmark = pytest.mark.real

MODEL = "smollm2-135m-instruct"
GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_test.jsonl"
TRIES = 240


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        # In bfloat16 a seed repeats only where nothing else is in the batch.
        patch.setenv("TTS_SERVER_ENGINE_ARGS", '{"dtype": "float32"}')
        with served("--model", MODEL, "--engine", "vllm", "--max-model-len", "2048") as (url, process):
            yield url, process


@pytest.fixture
def client(server: tuple[str, Any]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client:
        yield client


@pytest.fixture(scope="module")
def question() -> str:
    if not GSM8K.exists():
        pytest.skip("needs the GSM8K test split beside the checkout")
    with GSM8K.open() as lines:
        return str(json.loads(next(lines))["question"])


def test_a_gsm8k_question_is_answered_by_best_of_n(client: openai.OpenAI, question: str) -> None:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        max_tokens=128,
        extra_body={"tts": {"strategy": "best_of_n", "n": 8, "return_candidates": True}},
    )
    tts = reply.model_extra["tts"]  # type: ignore[index]
    assert reply.choices[0].message.content in [c["text"] for c in tts["candidates"]]
    assert len(tts["candidates"]) == tts["samples"] == 8
    # What was cut off before it came to an answer stands behind.
    whole = [c for c in tts["candidates"] if c["answer"] is not None or c["finish_reason"] == "stop"]
    assert tts["score"] == max(c["score"] for c in whole or tts["candidates"])
    assert all(0 <= s <= 1 for c in tts["candidates"] for s in c["step_scores"])
    assert reply.usage
    assert reply.usage.completion_tokens == sum(c["completion_tokens"] for c in tts["candidates"])
    assert tts["usage"]["prm_tokens"] > 0
    assert tts["usage"]["engine_prompt_tokens"] == 8 * reply.usage.prompt_tokens


def test_a_prompt_is_prefilled_once(client: openai.OpenAI) -> None:
    story = "A farmer has seven fields. " * 30
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": story + "How many fields has the farmer?"}],
        max_tokens=4,
        extra_body={"tts": {"strategy": "best_of_n", "n": 16, "selector": "majority"}},
    )
    used = reply.model_extra["tts"]["usage"]  # type: ignore[index]
    assert reply.usage
    computed = used["engine_prompt_tokens"] - used["cached_prompt_tokens"]
    # Each sample but the first computes at most the last, unfinished block of the cache again.
    assert computed <= reply.usage.prompt_tokens + 15 * 32


def test_single_streams_from_the_first_token(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from one to ten."}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) > 5
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 24


def test_a_seed_repeats_the_answer(client: openai.OpenAI) -> None:
    said = [
        client.chat.completions.create(
            model=f"{MODEL}@self_consistency",
            messages=[{"role": "user", "content": "Name a colour."}],
            max_tokens=12,
            seed=11,
            extra_body={"tts": {"n": 4, "return_candidates": True}},
        ).model_extra["tts"]["candidates"]  # type: ignore[index]
        for _ in range(2)
    ]
    assert [c["text"] for c in said[0]] == [c["text"] for c in said[1]]
    assert len({c["text"] for c in said[0]}) > 1


def test_an_engine_that_dies_is_started_again(server: tuple[str, Any], client: openai.OpenAI) -> None:
    """Last: it kills the engine's own process by its id, in the middle of a request."""
    url, process = server
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Tell a very long story."}],
        max_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    for child in engine_processes(process.pid):
        os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="engine"):
        list(stream)
    assert httpx.get(f"{url}/ready", timeout=NEVER_S).status_code == 503
    assert httpx.get(f"{url}/health", timeout=NEVER_S).status_code == 200
    for _ in range(TRIES):
        if httpx.get(f"{url}/ready", timeout=NEVER_S).status_code == 200:
            break
        time.sleep(0.5)
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert reply.choices[0].message.content


def engine_processes(pid: int) -> list[psutil.Process]:
    """The engine's core: the children that are neither the resource tracker nor a worker of the answer pool."""
    return [p for p in psutil.Process(pid).children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]
