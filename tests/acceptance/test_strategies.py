"""Every strategy on the real engine with real weights: it answers, and its trace shows the search it claims."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from patience import NEVER_S
from served import served

import strategies

pytestmark = pytest.mark.real

MODEL = "smollm2-135m-instruct"
GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_test.jsonl"
# Small enough that all of them are done within minutes on two cores.
SMALL: dict[str, Any] = {
    "n": 4,
    "beam_width": 2,
    "branch": 2,
    "max_steps": 2,
    "step_tokens": 24,
    "parallel": 2,
    "breadth": 2,
    "n_generate": 2,
    "n_evaluate": 1,
    "depth": 2,
    "layers": 1,
    "proposers": 2,
    "revisions": 1,
    "warmup": 2,
    "max_thinking_tokens": 32,
}


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with (
        served("--model", MODEL, "--engine", "vllm", "--max-model-len", "2048") as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=NEVER_S) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def question() -> str:
    if not GSM8K.exists():
        pytest.skip("needs the GSM8K test split beside the checkout")
    with GSM8K.open() as lines:
        return str(json.loads(next(lines))["question"])


@pytest.mark.parametrize("name", list(strategies.registry()))
def test_a_strategy_answers_on_the_real_engine(name: str, client: openai.OpenAI, question: str) -> None:
    known = strategies.get(name).options.model_fields
    options = {key: value for key, value in SMALL.items() if key in known}
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": question}],
        max_tokens=48,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"tts": {"strategy": name, "budget": {"max_tokens": 1500, "deadline_s": 60}, **options}},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    progress = "".join((c.choices[0].delta.model_extra or {}).get("reasoning", "") for c in chunks if c.choices)
    told = next(extra["tts"] for c in chunks if (extra := c.model_extra) and "tts" in extra)
    assert text.strip()
    assert progress or name == "single"
    assert told["strategy"] == name
    assert told["stop_reason"] in (None, "max_tokens", "deadline")
    assert told["samples"] >= 1
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == told["usage"]["completion_tokens"] > 0
