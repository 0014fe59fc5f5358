"""Every task reads the example it opens with, and its whole file; what is wrong with data is said with its place."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import tasks
from bench.tasks import PROMPTS, Problem, Task, TaskError, load, registry

DATA = Path(__file__).parents[4] / "shared" / "data"
NAMES = ("aime24", "aime25", "amc23", "gsm8k", "math500", "svamp")


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tasks.DATA_VARIABLE, raising=False)


def example(name: str) -> dict[str, Any]:
    """The record at the top of the task's file."""
    module = inspect.getmodule(registry()[name].read)
    assert module is not None
    paragraph = (inspect.getdoc(module) or "").split("\n\n")[1]
    found: dict[str, Any] = json.loads(re.sub(r"\n\s*", " ", paragraph))
    return found


def written(directory: Path, name: str, *rows: dict[str, Any]) -> Path:
    """A data directory with these records as the task's file."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / next(iter(registry()[name].files.values()))).write_text(lines)
    return directory


def of_data(name: str, **options: Any) -> Task:
    try:
        return load(name, data=DATA, **options)
    except TaskError as error:
        if "there is no file" not in str(error):
            raise
        pytest.skip(f"the data set is not beside the repository: {error}")


def test_every_task_is_there() -> None:
    assert tuple(registry()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_task_reads_the_example_it_opens_with(name: str, tmp_path: Path) -> None:
    row = example(name)
    task = load(name, data=written(tmp_path, name, row))
    (problem,) = task.problems
    assert (task.name, task.split, task.size, task.source) == (name, "test", 1, registry()[name].files["test"])
    given = {str(value) for value in row.values()}
    assert problem.question in given or problem.question.startswith(row["Body"])
    assert any(problem.gold in value for value in given)
    assert set(task.prompts) <= set(PROMPTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", ("test/0", "3", None, None)),
        ("math500", ("test/algebra/1072.json", "2", "3", "Algebra")),
        ("aime24", ("60", "204", None, None)),
        ("amc23", ("0", "27", None, None)),
        ("svamp", ("chal-777", "145", None, "Common-Division")),
    ],
)
def test_what_an_example_becomes(name: str, expected: tuple[str | None, ...], tmp_path: Path) -> None:
    (problem,) = load(name, data=written(tmp_path, name, example(name))).problems
    assert (problem.id, problem.gold, problem.level, problem.subject) == expected


@pytest.mark.parametrize(("name", "split", "size"), [("gsm8k", None, 1319), ("gsm8k", "train", 7473)])
def test_all_of_gsm8k_is_read(name: str, split: str | None, size: int) -> None:
    task = of_data(name, split=split)
    assert len(task.problems) == task.size == size
    assert all(problem.gold.lstrip("-").isdecimal() and problem.solution for problem in task.problems)
    assert task.problems[5].id == f"{split or 'test'}/5"


def test_all_of_math500_is_read() -> None:
    task = of_data("math500")
    assert len({problem.id for problem in task.problems}) == 500
    assert {problem.level for problem in task.problems} == {"1", "2", "3", "4", "5"}
    assert len({problem.subject for problem in task.problems}) == 7


def test_a_part_is_cut_out_of_the_whole() -> None:
    whole, part = of_data("gsm8k"), of_data("gsm8k", limit=3, offset=2)
    assert part.problems == whole.problems[2:5]
    assert (part.sha256, part.size) == (whole.sha256, whole.size)


def test_the_hash_is_that_of_the_problems(tmp_path: Path) -> None:
    row = example("math500")
    one = load("math500", data=written(tmp_path, "math500", row))
    same = load("math500", data=written(tmp_path, "math500", {**row, "level": "Level 3", "solution": "otherwise"}))
    other = load("math500", data=written(tmp_path, "math500", {**row, "answer": "3"}))
    assert one.sha256 == same.sha256 != other.sha256


def test_the_environment_names_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tasks.DATA_VARIABLE, str(written(tmp_path, "amc23", example("amc23"))))
    assert load("amc23").problems[0].gold == "27"


def test_a_file_is_a_task(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1 + 1?", "gold": 2}\n\n{"id": 7, "problem": "East of west?", "answer": "east"}\n')
    task = load(str(file))
    assert (task.name, task.split, task.source) == ("mine", "all", "mine.jsonl")
    assert task.problems == (Problem("0", "1 + 1?", "2"), Problem("7", "East of west?", "east"))


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"question": "?", "answer": "18"}, "must end in '#### ' and the gold answer, not in '18'"),
        ("gsm8k", {"question": "?", "answer": "#### many"}, "the gold answer 'many' is not a number"),
        ("gsm8k", {"question": "?"}, "no field 'answer'; its fields are 'question'"),
        ("gsm8k", {"question": " ", "answer": "#### 1"}, "field 'question' is blank"),
        ("gsm8k", {"question": ["?"], "answer": "#### 1"}, "field 'question' must be text or a number, not list"),
        ("math500", {"problem": "?", "answer": "1", "level": 3}, "no field 'subject'"),
        ("math500", {"problem": "?", "answer": "1", "level": "hard", "subject": "A"}, "must be 1 to 5"),
        ("math500", {"problem": "?", "answer": r"\frac{1}{", "level": 1, "subject": "A"}, "cannot be parsed"),
        ("aime24", {"problem": "?", "answer": "1000"}, "an integer from 0 to 999, not '1000'"),
        ("aime25", {"problem": "?", "answer": "-3"}, "an integer from 0 to 999, not '-3'"),
        ("aime24", {"problem": "?", "solution": "It is clear."}, "is not a number"),
        ("amc23", {"question": "?", "answer": "(C)"}, "is not a number"),
        ("svamp", {"Body": "b", "Question": "q", "Answer": None}, "no field 'Answer'"),
    ],
)
def test_a_record_of_the_wrong_shape_is_named(name: str, row: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = written(tmp_path, name, example(name), row)
    with pytest.raises(TaskError, match=re.escape(message)) as error:
        load(name, data=data)
    assert f"{data / registry()[name].files['test']}:2: " in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "gsm9k",
            {},
            "there is no task 'gsm9k'; there are aime24, aime25, amc23, gsm8k, math500, svamp, and",
        ),
        ("gsm8k", {"split": "dev"}, "gsm8k has no split 'dev'; it has test, train"),
        ("gsm8k", {"limit": 0}, "limit must be at least 1, not 0"),
        ("gsm8k", {"offset": -1}, "offset must be at least 0, not -1"),
        ("gsm8k", {"offset": 1}, "no problem is left: gsm8k has 1, and offset is 1"),
        ("missing.jsonl", {}, "missing.jsonl cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_wish_is_refused(name: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = written(tmp_path, "gsm8k", example("gsm8k"))
    with pytest.raises(TaskError, match=re.escape(message)):
        load(name, data=data, **options)


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "?", "gold": 2}\n')
    with pytest.raises(TaskError, match="a file has no splits"):
        load(str(file), split="test")


def test_a_missing_file_of_a_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=re.escape(f"there is no file {tmp_path / 'gsm8k_train.jsonl'}")):
        load("gsm8k", data=tmp_path, split="train")
