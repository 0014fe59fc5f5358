"""What the server costs on top of vLLM, measured side by side in one run.

1. `best_of_n` with n=16 through HTTP against vLLM's own offline `LLM.generate` with n=16.
2. `single` through HTTP against `vllm serve`, at 1, 8 and 32 clients.

Same prompts, weights and engine settings; every sample has exactly `--tokens` tokens. The contestants are up at the
same time and take turns, so a ratio compares neighbours in time. Prints a table; `--out` writes it with its command.

    python -m bench.studies.overhead --model smollm2-135m-instruct --out bench/results/overhead.md
"""

import asyncio
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from bench.failures import check_file
from bench.stored.machine import has_bfloat16, machine, versions
from bench.studies.processes import free_port, running, tts_server

N = 16
CLIENTS = (1, 8, 32)
PROMPTS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?",
    "Weng earns $12 an hour for babysitting. Yesterday, she just did 50 minutes of babysitting. How much did she earn?",
)
"""Two problems of GSM8K's training split (MIT)."""

# One set for every contestant: what the server itself chooses on a CPU.
ARGS: dict[str, Any] = {
    "dtype": "bfloat16" if has_bfloat16() else "float32",
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": 2048,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 64,
    "enable_prefix_caching": True,
}
ENV = {
    # The server binds a thread to each core; vLLM by itself leaves one core free, which is another setting.
    "OMP_NUM_THREADS": str(os.cpu_count()),
    "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}

# What `vllm serve` runs; the command itself does not start from the CPU package.
VLLM_SERVE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]

OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    model, args, prompts = json.loads(sys.argv[1])
    llm = LLM(model, **args)
    chats = [[{"role": "user", "content": p}] for p in prompts]
    print("ready", flush=True)
    for line in sys.stdin:
        n, tokens = json.loads(line)
        params = SamplingParams(n=n, max_tokens=tokens, temperature=0.8, ignore_eos=True)
        began = time.perf_counter()
        outputs = llm.chat(chats, params, use_tqdm=False)
        took = time.perf_counter() - began
        print(json.dumps([sum(len(c.token_ids) for o in outputs for c in o.outputs), took]), flush=True)
"""


class Offline:
    """vLLM's `LLM.generate` in a process of its own, asked over its standard input."""

    def __init__(self, model: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OFFLINE, json.dumps([model, ARGS, PROMPTS])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENV},
            start_new_session=True,
        )
        self._read("ready")

    def rate(self, tokens: int) -> float:
        """Generated tokens per second of one call with all prompts."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([N, tokens]).encode() + b"\n")
        self._process.stdin.flush()
        generated, seconds = json.loads(self._read("["))
        return float(generated / seconds)

    def close(self) -> None:
        # At the end of its input it shuts its engine down; a signal would leave the engine's processes behind.
        if self._process.poll() is None:
            self._process.communicate(timeout=60)

    def _read(self, start: str) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(start.encode()):
                return line.decode()
        raise RuntimeError("vLLM's offline engine died")


async def http_rate(
    url: str, body: dict[str, Any], prompts: Sequence[str], clients: int
) -> tuple[float, dict[str, Any]]:
    """Generated tokens per second of one request a prompt, `clients` at a time; and the last answer's body."""
    queue = list(prompts)
    generated = 0
    last: dict[str, Any] = {}

    async def client(http: httpx.AsyncClient) -> None:
        nonlocal generated, last
        while queue:
            chat = [{"role": "user", "content": queue.pop()}]
            response = await http.post("/v1/chat/completions", json={**body, "messages": chat})
            response.raise_for_status()
            last = response.json()
            generated += last["usage"]["completion_tokens"]

    async with httpx.AsyncClient(base_url=url, timeout=600) as http:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client(http))
        return generated / (time.perf_counter() - began), last


def interval(ratios: Sequence[float], seed: int = 0, draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def duel(name: str, ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> str:
    """A table row: both medians and their ratio over paired rounds, after one round that does not count."""
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    ratios = [a / b for a, b in pairs]
    low, high = interval(ratios)
    mine, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    row = f"| {name} | {mine:.1f} | {other:.1f} | {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} |"
    print(row, flush=True)
    return row


def measure(model: str, path: str, tokens: int, rounds: int) -> list[str]:
    """The table's rows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = folder / "config.toml"
        config.write_text("[engine_args]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in ARGS.items()))
        port, other = free_port(), free_port()
        command = tts_server("--model", model, "--engine", "vllm", "--port", str(port), "--config", str(config))
        stack.enter_context(running(command, port, folder / "ours.log", ENV))
        offline = Offline(path)
        stack.callback(offline.close)
        exact = {"max_tokens": tokens, "temperature": 0.8, "ignore_eos": True}
        best = {**exact, "model": model, "tts": {"strategy": "best_of_n", "n": N, "selector": "majority"}}
        answers: list[dict[str, Any]] = []

        def ours_best() -> float:
            rate, last = asyncio.run(http_rate(f"http://127.0.0.1:{port}", best, PROMPTS, len(PROMPTS)))
            answers.append(last)
            return rate

        rows = [duel(f"best_of_n n={N} : LLM.generate n={N}", ours_best, lambda: offline.rate(tokens), rounds)]
        used = answers[0]["tts"]["usage"]
        rows.append(
            f"\nFirst best-of-{N} of a prompt of {answers[0]['usage']['prompt_tokens']} tokens: "
            f"{used['engine_prompt_tokens']} prompt tokens asked for, {used['cached_prompt_tokens']} from the prefix "
            f"cache, {used['engine_prompt_tokens'] - used['cached_prompt_tokens']} computed.\n"
        )
        print(rows[-1], flush=True)
        offline.close()
        flags = [f"--{k.replace('_', '-')}" + ("" if v is True else f"={v}") for k, v in ARGS.items()]
        serve = [*VLLM_SERVE, path, *flags, "--port", str(other)]
        stack.enter_context(
            running([*serve, "--served-model-name", model, "--host", "127.0.0.1"], other, folder / "theirs.log", ENV)
        )
        for clients in CLIENTS:
            prompts = (PROMPTS * clients)[: max(2 * clients, 4)]

            def rate(at: int, prompts: Sequence[str] = prompts, clients: int = clients) -> float:
                return asyncio.run(http_rate(f"http://127.0.0.1:{at}", {**exact, "model": model}, prompts, clients))[0]

            rows.append(
                duel(f"single : vllm serve, {clients} clients", lambda: rate(port), lambda: rate(other), rounds)
            )
    return rows


def pulled(model: str) -> str:
    """The model's directory, for vLLM itself."""
    command = [sys.executable, "-m", "tts_server.cli.main", "models", "pull", model]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return said.rpartition(" is at ")[2].strip()


def main(
    model: Annotated[str, typer.Option(help="A model of `tts-server models list`.")] = "smollm2-135m-instruct",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each sample.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds that count.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Markdown file to write.")] = None,
) -> None:
    """Prints the table of ratios."""
    check_file(out, "--out")
    head = [
        "| contest | ours, tokens/s | theirs, tokens/s | median ratio | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    rows = measure(model, pulled(model), tokens, rounds)
    if out:
        table = [*head, rows[0], *rows[2:], rows[1]]
        note = f"{machine()}; {versions('tts-server', 'vllm-cpu', 'vllm', 'torch')}; {ARGS['dtype']}, "
        note += f"{tokens} tokens a sample; {rounds} paired rounds."
        command = shlex.join(["python", "-m", "bench.studies.overhead", *sys.argv[1:]])
        out.write_text("\n".join(["# Overhead over vLLM", "", f"    {command}", "", note, "", *table, ""]))


if __name__ == "__main__":
    typer.run(main)
