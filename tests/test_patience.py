"""No test ends because a machine is busy: what is no test of time waits for `patience.NEVER_S`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LEAST_S = 1.0
"""A shorter wait is meant to run out."""
CLIENTS = {f"httpx.{name}" for name in ("get", "post", "put", "delete", "head", "stream", "request", "Client")}
CLIENTS |= {"httpx.AsyncClient"}
WAITS = {"communicate", "wait", "join", "result", "timeout", "wait_for"}
ABOUT_TIME = {
    "tts_server/client/test_streams.py": "a stream that falls silent",
    "tts_server/observe/metrics/test_gauges.py": "`timeout` is a number of timeouts there",
}


def impatient(code: str) -> Iterator[str]:
    """The calls that give up early, or by httpx's own default of five seconds."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called, named = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        if called in CLIENTS and "timeout" not in named:
            yield ast.unparse(node)
        waits = [named["timeout"]] if "timeout" in named else []
        if called.rpartition(".")[2] in WAITS and not called.endswith("path.join"):
            waits += node.args[-1:]
        if any(isinstance(wait, ast.Constant) and _gives_up(wait.value) for wait in waits):
            yield ast.unparse(node)


def _gives_up(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= LEAST_S


@pytest.mark.parametrize("file", sorted(str(file.relative_to(TESTS)) for file in TESTS.rglob("*.py")))
def test_no_test_gives_up_early(file: str) -> None:
    if file not in ABOUT_TIME:
        assert list(impatient((TESTS / file).read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        "httpx.get(url)",
        "httpx.AsyncClient(base_url=url)",
        "httpx.post(url, timeout=30)",
        "subprocess.run(command, timeout=60)",
        "asyncio.timeout(20)",
        "asyncio.wait_for(task, 10)",
        "thread.join(5.0)",
        "event.wait(2)",
    ],
)
def test_a_call_that_gives_up_early_is_found(code: str) -> None:
    assert list(impatient(code)) != []


@pytest.mark.parametrize(
    "code",
    [
        "httpx.get(url, timeout=NEVER_S)",
        "asyncio.timeout(0.01)",
        "thread.join()",
        "', '.join(names)",
        "asyncio.wait_for(task, NEVER_S)",
        "client.get(url)",
    ],
)
def test_a_call_that_waits_is_none(code: str) -> None:
    assert list(impatient(code)) == []
