"""The clients that people have, unmodified, against a server as its user starts it. Their packages live apart.

`make test` installs the Python ones into `.venv/clients` (CLIENTS_PYTHON names another interpreter) and those of node
into this folder. lm-eval, inspect-ai and guidellm are heavy: see test_harnesses.py.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import NEVER_S
from served import served

HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / ".venv" / "clients"
PYTHON = os.environ.get("CLIENTS_PYTHON", str(CLIENTS / "bin" / "python"))
NODE = HERE / "node"
OVERFLOW = "This model's maximum context length is 32768 tokens. However, your messages resulted in"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake", "--log-level", "warning") as (base, _):
        yield base


def printed(command: list[str], **env: str) -> Any:
    """What a script prints as JSON; nothing else of the environment tells it where to go."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "LANGCHAIN_"))}
    done = subprocess.run(command, env=kept | env, capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def python(script: str, *arguments: str) -> Any:
    if not Path(PYTHON).exists():
        pytest.skip("requirements/install.sh clients, or name an environment's interpreter by CLIENTS_PYTHON")
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "PYTHONWARNINGS": "ignore"}
    return printed([PYTHON, str(HERE / "clients" / script), *arguments], **quiet)


def node(script: str, *arguments: str) -> Any:
    if not shutil.which("node"):
        pytest.skip("there is no node")
    if not (NODE / "node_modules").exists():
        pytest.skip("npm ci --prefix tests/acceptance/node")
    return printed(["node", str(NODE / script), *arguments], AI_SDK_LOG_WARNINGS="false", NODE_NO_WARNINGS="1")


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def check_stream(chunks: list[dict[str, Any]]) -> None:
    """A search's stream: a role, a thought, an answer in pieces, one end and the usage once."""
    *said, last = chunks
    assert last["choices"] == []
    assert not any(chunk.get("usage") for chunk in said)
    assert last["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert said[0]["choices"][0]["delta"]["role"] == "assistant"
    assert any(chunk["choices"][0]["delta"].get("reasoning_content") for chunk in said)
    assert "boxed" in text_of(chunks)
    assert [c["choices"][0].get("finish_reason") for c in said][-2:] == [None, "stop"]


def test_the_openai_package_2(url: str) -> None:
    seen = python("openai_two.py", f"{url}/v1")
    assert seen["version"].startswith("2.")
    assert {"fake", "fake@best_of_n"} <= set(seen["models"])
    assert seen["one"] == "fake@best_of_n"
    assert seen["plain"]["tts"]["samples"] == 4
    check_stream(seen["chunks"])
    assert (seen["unknown"]["class"], seen["unknown"]["code"]) == ("NotFoundError", "model_not_found")
    assert (seen["wrong"]["class"], seen["wrong"]["param"]) == ("BadRequestError", "temperature")
    assert seen["overflow"]["code"] == "context_length_exceeded"
    assert OVERFLOW in seen["overflow"]["said"]
    assert seen["together"] == 4


def test_langchain(url: str) -> None:
    seen = python("langchain_chat.py", f"{url}/v1")
    assert "boxed" in seen["text"]
    assert seen["finish"] == "stop"
    used = seen["usage"]
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]
    assert 0 < used["output_token_details"]["reasoning"] < used["output_tokens"]
    stream = seen["stream"]
    assert "boxed" in stream["text"]
    assert stream["pieces"] > 10
    # It adds up the usage of all chunks.
    assert stream["usage"]["input_tokens"] < 100
    assert stream["usage"]["total_tokens"] == stream["usage"]["input_tokens"] + stream["usage"]["output_tokens"]
    assert len(seen["batch"]) == 3
    assert all(seen["batch"])
    assert [call["name"] for call in seen["calls"]] == ["get_weather"]
    assert set(seen["point"]) == {"x", "label"}


@pytest.fixture(scope="module")
def by_litellm(url: str) -> Any:
    """By both providers in one process: to import the package takes longer than all calls."""
    return python("litellm_chat.py", f"{url}/v1")


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_litellm(by_litellm: Any, provider: str) -> None:
    seen = by_litellm[provider]
    assert "boxed" in seen["text"]
    assert 0 < seen["usage"]["completion_tokens_details"]["reasoning_tokens"] < seen["usage"]["completion_tokens"]
    assert "boxed" in seen["streamed"]
    assert seen["reasoning"].startswith("4 samples are under way")
    assert seen["stream_usage"][-1]["completion_tokens_details"]["reasoning_tokens"] > 0
    assert (seen["finish"], seen["call"]) == ("tool_calls", "get_weather")
    assert seen["unknown"] == "NotFoundError"
    assert seen["wrong"] == "BadRequestError"
    assert seen["overflow"] == "ContextWindowExceededError"
    assert seen["together"] == 3


def test_the_openai_package_of_node(url: str) -> None:
    seen = node("openai.js", f"{url}/v1")
    assert seen["plain"]["tts"]["samples"] == 4
    check_stream(seen["chunks"])
    assert "boxed" in seen["helper"]
    assert "fake@best_of_n" in seen["models"]
    unknown = {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model", "id": True}
    assert seen["unknown"] == unknown
    assert (seen["wrong"]["kind"], seen["wrong"]["param"]) == ("BadRequestError", "temperature")


def test_the_ai_sdk_of_node(url: str) -> None:
    seen = node("ai.js", f"{url}/v1")
    assert "boxed" in seen["text"]
    assert seen["finish"] == "stop"
    assert seen["usage"]["outputTokenDetails"]["reasoningTokens"] > 0
    assert "boxed" in seen["streamed"]
    assert "samples are under way" in seen["thought"]
    assert seen["streamUsage"]["outputTokens"] > 0
    assert seen["pieces"] > 10
    assert set(seen["point"]) == {"x", "label"}
    assert seen["calls"] == ["get_weather"]
    assert seen["status"] == 404


VLLM_BENCH = """
from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""
"""What `vllm bench serve` runs; the command itself does not start from the CPU package."""


@pytest.mark.real
def test_the_load_test_of_vllm(url: str, tmp_path: Path) -> None:
    flags = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", url]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"What is {i} + 2?"}) + "\n" for i in range(8)))
    work = ["--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-tokenizer-init", "--num-prompts", "8"]
    body = ["--extra-body", '{"tts": {"strategy": "best_of_n", "n": 2}}', "--request-id-prefix", "load-"]
    out = ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "seen.json", "--disable-tqdm"]
    done = subprocess.run(
        [sys.executable, "-c", VLLM_BENCH, *flags, *work, *body, *out],
        capture_output=True, text=True, timeout=NEVER_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert (seen["completed"], seen["failed"]) == (8, 0)
    assert seen["total_output_tokens"] > 0
