import asyncio
import re
from pathlib import Path

import pytest

from bench.tasks import TaskError, load
from bench.tasks.jsonl import gold


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("18", "18"),
        ("70,000", "70,000"),
        ("Monday", "Monday"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\left( 3, \frac{\pi}{2} \right)"),
        (r"\left\{ 1, 2 \right\}", r"\left\{ 1, 2 \right\}"),
        ("She makes 9 * 2 = $18.\n#### 18", "18"),
        (r"Therefore $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    ],
)
def test_a_gold_answer_is_taken_as_it_is_and_out_of_a_solution(value: str, answer: str) -> None:
    assert gold(value) == answer


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "?", "gold": 1}\n{"question": "?"\n', ":2: not a line of JSON"),
        (b'{"question": "?", "gold": 1}\n\xff\xfe\n', ":2: not UTF-8 text"),
        (b'\n["?", 1]\n', ":2: a line must be a JSON object, not list"),
        (
            b'{"question": "?"}\n',
            ":1: no field 'gold' or 'answer' or 'target' or 'solution'; its fields are ",
        ),
        (b"{}\n", ":1: no field 'question' or 'problem' or 'prompt'; its fields are none"),
        (b'{"question": "?", "gold": true}\n', ":1: field 'gold' must be text or a number, not bool"),
        (b'{"question": "?", "gold": "}1{"}\n', ":1: the gold answer cannot be parsed, its braces do not match: '}1{'"),
        (b'{"question": "?", "gold": "a } b } {{"}\n', "its braces do not match"),
        (b'{"question": "?", "gold": "It holds that \\\\boxed{}"}\n', ":1: the gold solution names no answer"),
        (b'{"question": "?", "gold": "' + b"x" * 501 + b'"}\n', ":1: the gold answer has 501 characters"),
        (
            b'{"id": 1, "question": "?", "gold": 1}\n\n{"id": "1", "question": "!", "gold": 2}\n',
            ":3: the id '1'",
        ),
        (b'{"id": "1", "question": "?", "gold": 1}\n{"question": "!", "gold": 2}\n', ":2: the id '1' is taken"),
        (b'{"question": "?", "gold": "x +"}\n', ":1: the gold answer cannot be parsed: 'x +'"),
        (b'{"question": "?", "gold": "\\\\sqrt{(1}"}\n', ":1: the gold answer cannot be parsed"),
        (b"\n \n", ": there are no problems in it"),
        (b"", ": there are no problems in it"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(content)
    with pytest.raises(TaskError, match=re.escape(message)) as error:
        load(str(file))
    assert str(error.value).startswith(str(file))


def test_a_duplicate_names_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"id": "a", "question": "?", "gold": 1}\n' * 2)
    with pytest.raises(TaskError, match=re.escape(f"{file}:2: the id 'a' is taken already by {file}:1")):
        load(str(file))


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_record(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"question": "?", "gold": 1}\r\n\r\n{"question": "!", "gold": 2}\r\n')
    assert [problem.gold for problem in load(str(file)).problems] == ["1", "2"]


def test_a_task_can_be_loaded_where_an_event_loop_runs(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "?", "gold": "\\\\sqrt{2}"}\n')

    async def main() -> int:
        return load(str(file)).size

    assert asyncio.run(main()) == 1


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        load(str(tmp_path))
