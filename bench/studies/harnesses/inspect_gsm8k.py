"""GSM8K in inspect-ai, asked as `tts-bench run --task gsm8k` asks it, from the same file.

    export TTS_BENCH_DATA=data TTS_API_KEY=none TTS_BASE_URL=http://127.0.0.1:8000/v1
    inspect eval bench/studies/harnesses/inspect_gsm8k.py --model openai-api/tts/MODEL --limit 50 \
        --seed 0 --temperature 0.7 --max-tokens 1024 --max-connections 8 --log-format json --log-dir runs/inspect \
        --extra-body '{"tts": {"strategy": "best_of_n", "n": 8}}'

It imports nothing of ours, so inspect-ai can live in an environment of its own.
"""
# mypy: disable-error-code="import-not-found, untyped-decorator, unused-ignore"

import os
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.scorer import match, pattern
from inspect_ai.solver import generate, system_message

PROMPT = "Please reason step by step, and put your final answer within \\boxed{{}}."
"""With its braces doubled, because inspect-ai takes it for a template."""
BOXED = r"\\boxed\{\s*\$?([^{}]*?)(?:\.0+)?\s*\}"


@task
def gsm8k() -> Any:
    """Its test split, from the directory that TTS_BENCH_DATA names."""
    file = Path(os.environ["TTS_BENCH_DATA"], "gsm8k_test.jsonl")
    return Task(
        dataset=json_dataset(str(file), _sample),
        solver=[system_message(PROMPT), generate()],
        # As inspect-ai's own GSM8K example grades, and by what is in a box.
        scorer=[match(numeric=True), pattern(BOXED)],
    )


def _sample(row: dict[str, Any]) -> Any:
    target = row["answer"].partition("####")[2].replace(",", "").strip()
    return Sample(input=row["question"].strip(), target=target)
