"""GSM8K's file for lm-evaluation-harness, which loads this module by its path: it imports nothing of ours."""

import json
import os
from pathlib import Path
from typing import Any


def load(**_: Any) -> Any:
    """The test split, from the directory that TTS_BENCH_DATA names."""
    # lm-evaluation-harness brings it.
    from datasets import Dataset  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: PLC0415

    if "TTS_BENCH_DATA" not in os.environ:
        raise SystemExit("TTS_BENCH_DATA names the directory with gsm8k_test.jsonl; it is not set")
    file = Path(os.environ["TTS_BENCH_DATA"], "gsm8k_test.jsonl")
    rows = [json.loads(line) for line in file.read_text().split("\n") if line.strip()]
    return {"test": Dataset.from_list([{"question": row["question"], "answer": row["answer"]} for row in rows])}
