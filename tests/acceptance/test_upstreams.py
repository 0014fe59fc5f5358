"""A server before two of its own kind, as an operator starts them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from patience import NEVER_S
from served import served

QUESTION = "Think of the number 17, and tell me in detail what it is and where it comes from."
SEARCH = {"strategy": "best_of_n", "n": 4, "prm": "judge"}


def ask(url: str) -> dict[str, Any]:
    body = {"model": "fake", "messages": [{"role": "user", "content": QUESTION}], "tts": SEARCH}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=NEVER_S)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def live(url: str) -> bool:
    page = httpx.get(f"{url}/metrics", timeout=NEVER_S).text
    return any(line.startswith("tts_live_samples{") and not line.endswith(" 0.0") for line in page.splitlines())


def test_a_search_survives_the_death_of_the_upstream_that_it_runs_on(tmp_path: Path) -> None:
    def config(name: str) -> str:
        file = tmp_path / f"{name}.toml"
        args = "[engine_args]\ntoken_s = 0.05\n" if name != "front" else ""
        file.write_text(f'data_dir = "{tmp_path / name}"\n{args}')
        return str(file)

    fake = ("--engine", "fake", "--config")
    with served(*fake, config("a")) as (a, one), served(*fake, config("b")) as (b, other):
        both = ("--upstream", f"{a}/v1", "--upstream", f"{b}/v1", "--prm", "judge")
        with served("--engine", "openai", *both, "--config", config("front")) as (url, _), ThreadPoolExecutor() as pool:
            asked = pool.submit(ask, url)
            while not (at_a := live(a)) and not live(b):
                assert not asked.done()
                time.sleep(0.02)
            (one if at_a else other).kill()
            told = asked.result(NEVER_S)
            page = httpx.get(f"{url}/metrics", timeout=NEVER_S).text
            assert httpx.get(f"{url}/ready", timeout=NEVER_S).status_code == 200
    assert told["tts"]["stop_reason"] is None
    assert told["tts"]["answer"]
    assert told["usage"]["completion_tokens"] == told["tts"]["usage"]["completion_tokens"]
    dead = f'tts_upstream_failovers_total{{upstream="{a if at_a else b}"}}'
    assert any(line.startswith(dead) and not line.endswith(" 0.0") for line in page.splitlines())
