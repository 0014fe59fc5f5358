"""A reward model behind a real `vllm serve`, against the reference backend."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from patience import NEVER_S
from tiny_prm import QUESTION, save_tiny_prm

from prm.backend.local import load_prm
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine
from tts_server.prm_serving.loading import CheckedPRM, load
from tts_server.prm_serving.source import parse
from tts_server.server import bound

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.real

SOLUTIONS = [["There are 2 and 3 apples.", "2 + 3 = 5.", "The answer is 5."], ["naïve 数学 🙂"]]


@contextmanager
def vllm_serves(model: Path, *arguments: str) -> Iterator[str]:
    """The URL of a vLLM server of a model."""
    # Bound all the while: nobody else is given the port, and vLLM may have it, as it reuses addresses.
    with bound("127.0.0.1", 0) as held:
        yield from _served(model, held.getsockname()[1], arguments)


def _served(model: Path, port: int, arguments: Sequence[str]) -> Iterator[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    options = ["--enforce-eager", "--dtype", "float32", "--block-size", "32", "--kv-cache-memory-bytes", str(2**28)]
    environment = {**os.environ, "TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, *options, *arguments], env=environment, **pipes) as server:
        try:
            _wait(server, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait(server: "subprocess.Popen[bytes]", url: str) -> None:
    """Until it serves."""
    with httpx.Client(transport=httpx.HTTPTransport(retries=0), timeout=NEVER_S) as client:
        while server.poll() is None:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            try:
                server.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(f"vLLM ended with {server.returncode}")


def test_an_outcome_model_over_http(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    path = save_tiny_prm("outcome", tmp_path)

    async def plain() -> list[tuple[float, ...]]:
        reference = load_prm(str(path))
        await reference.backend.start()
        try:
            return [result.scores for result in await reference.score(QUESTION, SOLUTIONS)]
        finally:
            await reference.backend.close()

    async def remote(url: str) -> list[tuple[float, ...]]:
        prm = load(parse(str(path))[0], Settings(prm_upstream=url), FakeEngine())
        assert isinstance(prm, CheckedPRM)
        await prm.start()
        try:
            return [result.scores for result in await prm.score(QUESTION, SOLUTIONS)]
        finally:
            await prm.close()

    expected = asyncio.run(plain())
    with vllm_serves(path, "--runner", "pooling") as url:
        for got, want in zip(asyncio.run(remote(url)), expected, strict=True):
            assert got == pytest.approx(want, abs=1e-3)
