"""lm-evaluation-harness, inspect-ai and GuideLLM, unmodified, against a running server: the same texts and grades as
ours, and a load that is answered.

They are heavy and live in an environment of their own: HARNESS_PYTHON names its interpreter.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from patience import NEVER_S
from served import served

from bench.reporting.compare import read_log
from bench.stored.records import Record, read_records
from tts_server.engines.fake import encode
from tts_server.engines.fake_parts.tokens import prompt_logprobs

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("HARNESS_PYTHON", sys.executable)
SEARCH = '{"strategy": "best_of_n", "n": 4}'
PROBLEMS = 8


def has(module: str) -> bool:
    """Whether the interpreter could import a module; it is not imported, which takes seconds."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


def needs(module: str, package: str) -> None:
    if not has(module):
        pytest.skip(f"pip install {package!r}, and name that environment's interpreter by HARNESS_PYTHON")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("--engine", "fake", "--prm", "fake", "--log-level", "warning") as (base, _):
        yield base


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"question": f"What is  {i} + 1? ", "answer": f"So.\n#### {i + 1}"} for i in range(PROBLEMS)]
    (tmp_path / "gsm8k_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def ran(command: list[str], data: Path, **env: str) -> None:
    given = {**os.environ, "TTS_BENCH_DATA": str(data), "HF_HUB_OFFLINE": "1", **env}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def ours(url: str, data: Path, *strategy: str) -> Mapping[str, Record]:
    run = [sys.executable, "-m", "bench.cli", "run", "--task", "gsm8k", "--url", url, "--out", str(data / "ours")]
    ran([*run, *strategy], data)
    return {record.question: record for record in read_records(data / "ours")}


def agree(log: Path, records: Mapping[str, Record], grader: str) -> None:
    grades = read_log(log)[grader]
    assert len(grades) == PROBLEMS
    for grade in grades:
        record = records[grade.question.strip()]
        assert record.chosen is not None
        assert grade.text == record.samples[record.chosen].text
        assert grade.correct == record.correct
    assert any(grade.correct for grade in grades)


def test_lm_evaluation_harness_asks_for_a_strategy_in_its_gen_kwargs(url: str, data: Path) -> None:
    needs("lm_eval", "lm-eval[api]")
    model = f"model=fake,base_url={url}/v1/chat/completions,num_concurrent=4,timeout=3600,seed=0"
    ran(
        [
            PYTHON, "-m", "lm_eval", "run", "--model", "local-chat-completions", "--model_args", model,
            "--include_path", "bench/studies/harnesses", "--tasks", "tts_gsm8k", "--apply_chat_template",
            "--gen_kwargs", f'{{"temperature": 0.7, "max_gen_toks": 1024, "tts": {SEARCH}}}',
            "--log_samples", "--output_path", str(data / "lm"),
        ],
        data,
    )  # fmt: skip
    (log,) = (data / "lm").rglob("samples_*.jsonl")
    agree(log, ours(url, data, "--strategy", "best_of_n", "--n", "4"), "boxed")


def test_lm_evaluation_harness_reads_the_likelihood_of_given_answers(url: str, tmp_path: Path) -> None:
    needs("lm_eval", "lm-eval[api]")
    rows = [{"question": f"Is {i} even?", "choices": ["yes it is", "no it is not"], "label": i % 2} for i in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "tts_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{label}}",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "tts_choices.yaml").write_text(json.dumps(task))
    # Without a tokenizer of its own it asks the server's.
    model = f"model=fake,base_url={url}/v1/completions,num_concurrent=2"
    ran(
        [
            PYTHON, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", model, "--include_path",
            str(tmp_path), "--tasks", "tts_choices", "--log_samples", "--output_path", str(tmp_path / "lm"),
        ],
        tmp_path,
    )  # fmt: skip
    (log,) = (tmp_path / "lm").rglob("samples_*.jsonl")
    read = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(read) == len(rows)
    for sample in read:
        for choice, answer in zip(sample["doc"]["choices"], sample["filtered_resps"], strict=True):
            context = encode(sample["doc"]["question"])
            entries = prompt_logprobs((*context, *encode(f" {choice}")), 1)[len(context) - 1 :]
            assert float(answer[0]) == pytest.approx(sum(entry.logprob for entry in entries))
            assert str(answer[1]) == str(all(entry.top[0].token == entry.token for entry in entries))


def test_inspect_asks_for_a_strategy_by_the_models_alias(url: str, data: Path) -> None:
    needs("inspect_ai", "inspect-ai")
    ran(
        [
            PYTHON, "-m", "inspect_ai", "eval", "bench/studies/harnesses/inspect_gsm8k.py", "--model",
            "openai-api/tts/fake@best_of_n", "--seed", "0", "--temperature", "0.7", "--max-tokens", "1024",
            "--max-connections", "4", "--log-format", "json", "--log-dir", str(data / "inspect"), "--display", "plain",
        ],
        data,
        TTS_BASE_URL=f"{url}/v1",
        TTS_API_KEY="none",
    )  # fmt: skip
    (log,) = (data / "inspect").glob("*.json")
    agree(log, ours(url, data, "--model", "fake@best_of_n"), "pattern")


def test_guidellm_loads_a_search_and_sees_its_thought_and_its_tokens(url: str, tmp_path: Path) -> None:
    needs("guidellm", "guidellm")
    prompts = "".join(json.dumps({"prompt": f"What is {i} + 1?"}) + "\n" for i in range(PROBLEMS))
    (tmp_path / "rows.jsonl").write_text(prompts)
    backend = {
        "kind": "openai_http",
        "target": url,
        "request_format": "/v1/chat/completions",
        "extras": {"body": {"tts": json.loads(SEARCH)}},
    }
    ran(
        [
            PYTHON, "-m", "guidellm", "run", "--backend", json.dumps(backend), "--profile", "kind=concurrent,streams=2",
            "--constraint", f"kind=max_requests,count={PROBLEMS}",
            "--data", f"kind=json_file,path={tmp_path / 'rows.jsonl'}",
            "--output", f"kind=json,path={tmp_path / 'seen.json'}", "--disable-console",
        ],
        tmp_path,
        HF_DATASETS_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    (benchmark,) = json.loads((tmp_path / "seen.json").read_text())["benchmarks"]
    seen = benchmark["requests"]
    assert (len(seen["successful"]), seen["errored"], seen["incomplete"]) == (PROBLEMS, [], [])
    for request in seen["successful"]:
        assert "boxed" in request["output"]
        assert "samples are under way" in request["reasoning_output"]
        # Four samples of the same length: all that were generated are counted.
        assert request["output_metrics"]["text_tokens"] % 4 == 0
