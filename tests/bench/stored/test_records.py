"""Records: what is written is there, whatever happens next; what is wrong is named by file and line."""

import json
import logging
from pathlib import Path

import pytest
from full_disk import disk_of

from bench.stored.records import RECORDS, Record, RecordError, RecordWriter, SampleRecord, Usage, read_records

SAMPLE = SampleRecord(text="So it is 4.", answer="4", step_scores=(0.5, 0.75), score=0.75, completion_tokens=5)
FULL = Record(
    id="gsm8k/0",
    question="What is 2 + 2?",
    gold="4",
    samples=(SAMPLE, SampleRecord(error="out of memory", finish_reason="error")),
    answer="4",
    correct=True,
    chosen=0,
    confidence=0.75,
    stop_reason="max_tokens",
    level="1",
    subject="sums",
    usage=Usage(prompt_tokens=9, completion_tokens=5, prm_tokens=20),
    latency_s=1.5,
    ttft_s=0.25,
    finished="2026-01-02T03:04:05.000+00:00",
)


def numbered(number: int, text: str = "4") -> Record:
    return Record(id=str(number), gold="4", samples=(SampleRecord(text=text),))


def written(directory: Path, *records: Record) -> None:
    with RecordWriter(directory) as writer:
        for record in records:
            writer.append(record)


def test_what_is_written_is_read_from_the_directory_and_from_the_file(tmp_path: Path) -> None:
    written(tmp_path / "run", FULL, numbered(1))
    assert read_records(tmp_path / "run") == [FULL, numbered(1)]
    assert read_records(tmp_path / "run" / RECORDS) == [FULL, numbered(1)]


def test_a_line_is_a_problem_and_begins_with_its_id(tmp_path: Path) -> None:
    written(tmp_path, FULL, numbered(1, "two\nlines\u2028or\x85four"))
    lines = (tmp_path / RECORDS).read_bytes().split(b"\n")
    assert len(lines) == 3
    assert list(json.loads(lines[0]))[:4] == ["id", "question", "gold", "samples"]
    assert read_records(tmp_path)[1] == numbered(1, "two\nlines\u2028or\x85four")


def test_half_a_surrogate_pair_does_not_lose_the_record(tmp_path: Path) -> None:
    written(tmp_path, numbered(1, "a \ud83d b"))
    assert read_records(tmp_path)[0].samples[0].text == "a ? b"


def test_samples_from_elsewhere_need_only_gold_and_text_or_answer(tmp_path: Path) -> None:
    file = tmp_path / "else.jsonl"
    file.write_text(
        '{"gold": 18, "samples": [{"answer": 18.5, "model": "m"}], "source": "x"}\n\n{"gold":"a","samples":[]}'
    )
    assert read_records(file) == [
        Record(id="1", gold="18", samples=(SampleRecord(answer="18.5"),)),
        Record(id="3", gold="a", samples=()),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are no records in it"),
        ("\n\n", "there are no records in it"),
        ('{"gold": "1"}\n', ":1: samples: Field required"),
        ('{"gold": "1", "samples": []}\nnonsense\n', ":2: Invalid JSON"),
        ('{"gold": "1", "samples": []}\n[]\n', ":2: Input should be an object"),
        ('{"gold": "1", "samples": [{"answer": "1"}, {"score": 1}]}\n', ":1: samples.1 has neither text nor answer"),
        ('{"gold": "1", "samples": [{"text": "1", "score": "high"}]}\n', ":1: samples.0.score: "),
        ('{"gold": "1", "samples": [{"text": "1", "step_scores": 1}]}\n', ":1: samples.0.step_scores: "),
        ('{"gold": true, "samples": []}\n', ":1: gold: "),
        ('{"gold": "1", "samples": [{"text": "1"}], "chosen": 1}\n', ":1: chosen is 1 of 1 samples"),
        ('{"id": "a", "gold": "1", "samples": []}\n' * 2, ":2: id 'a' is also in line 1"),
        ('{"id": 2, "gold": "1", "samples": []}\n{"gold": "1", "samples": []}\n', ":2: id '2' is also in line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(text)
    with pytest.raises(RecordError) as error:
        read_records(file)
    assert str(error.value).startswith(f"{file}:")
    assert said in str(error.value)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"runs/none: cannot be read: No such file"):
        read_records(tmp_path / "runs" / "none")
    (tmp_path / RECORDS).write_bytes(b'{"gold": "\xff", "samples": []}\n')
    with pytest.raises(RecordError, match=r"records\.jsonl:1: "):
        read_records(tmp_path)


def test_a_line_that_a_crash_has_torn_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, numbered(1), numbered(2))
    file = tmp_path / RECORDS
    file.write_bytes(file.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert read_records(tmp_path) == [numbered(1)]
    assert caplog.messages == [f"{file}:2: the last line is torn and left out"]


@pytest.mark.parametrize("cut", [1, 2, 9, 40])
def test_writing_goes_on_behind_the_last_whole_line(tmp_path: Path, cut: int) -> None:
    written(tmp_path, numbered(1), numbered(2))
    file = tmp_path / RECORDS
    file.write_bytes(file.read_bytes()[:-cut])
    written(tmp_path, numbered(3))
    # A line that lacks nothing but its end is whole.
    kept = [numbered(1), numbered(2)] if cut == 1 else [numbered(1)]
    assert read_records(tmp_path) == [*kept, numbered(3)]


def test_a_full_disk_keeps_every_record_before_and_none_by_half(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.append(numbered(1))
        size = (tmp_path / RECORDS).stat().st_size
        with disk_of(size + size // 2), pytest.raises(RecordError, match=r"File too large; the records before stand"):
            writer.append(numbered(2))
        assert (tmp_path / RECORDS).stat().st_size == size
        writer.append(numbered(3))
    assert read_records(tmp_path) == [numbered(1), numbered(3)]


def test_two_runs_do_not_write_to_one_directory(tmp_path: Path) -> None:
    with (
        RecordWriter(tmp_path),
        pytest.raises(RecordError, match="another run is writing to it"),
        RecordWriter(tmp_path),
    ):
        pass
    written(tmp_path, numbered(1))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RecordError, match=r"file/run/records\.jsonl: cannot be written"),
        RecordWriter(tmp_path / "file" / "run"),
    ):
        pass
