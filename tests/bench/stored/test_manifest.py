"""The manifest: what a run needs to be repeated, and what keeps two runs apart."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.stored.manifest import (
    MANIFEST,
    Manifest,
    Server,
    Session,
    Settings,
    differences,
    git_commit,
    now,
    read_manifest,
    write_manifest,
)
from bench.stored.records import RecordError

SETTINGS = Settings(
    task="gsm8k",
    split="test",
    source="gsm8k_test.jsonl",
    data_sha256="00",
    prompt="boxed",
    messages=({"role": "user", "content": "{question}"},),
    model="m",
    strategy="best_of_n",
    options={"n": 4, "budget": {"deadline_s": 3.5}},
    sampling={"temperature": 0.7, "stop": ["\n\n"]},
)
WHOLE = Manifest(
    SETTINGS,
    Server("tts-server", "0.1", "vllm", "m", 4096, "judge"),
    limit=10,
    problems=10,
    sessions=(Session(now(), "http://localhost", "tts-bench run", "abc", "a machine", "x 1", now(), 10),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path / "run", WHOLE)
    assert read_manifest(tmp_path / "run") == WHOLE
    assert [file.name for file in (tmp_path / "run").iterdir()] == [MANIFEST]


def test_a_manifest_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"settings": {}}')
    with pytest.raises(RecordError, match=r"manifest\.json: settings\.task: Field required"):
        read_manifest(tmp_path)


def test_every_field_that_differs_is_told(tmp_path: Path) -> None:
    write_manifest(tmp_path, WHOLE)
    read = read_manifest(tmp_path)
    assert read is not None
    # What was read has lists where tuples were written.
    assert differences(read.settings, SETTINGS) == []
    other = replace(SETTINGS, model="other", options={"n": 8})
    assert differences(read.settings, other) == [
        "model: 'm', 'other'",
        "options: {'n': 4, 'budget': {'deadline_s': 3.5}}, {'n': 8}",
    ]


def test_a_commit_says_whether_the_checkout_was_clean(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{commit}+changes"
