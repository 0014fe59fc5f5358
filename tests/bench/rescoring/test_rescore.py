"""`tts-bench rescore` over runs and over samples from elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from bench.rescoring.rescore import command
from bench.stored.manifest import Manifest, Server, Settings, write_manifest
from bench.stored.records import RECORDS


def rescore(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def sample(answer: str, *step_scores: float, **fields: Any) -> dict[str, Any]:
    return {"text": f"So.\n\n\\boxed{{{answer}}}", "step_scores": step_scores or None, **fields}


def problem(gold: str, *samples: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"gold": gold, "samples": samples, **fields}


PROBLEMS = (
    problem("1", sample("1", 0.9, 0.2), sample("2", 0.5, 0.5), sample("2", 0.1, 0.9), sample("3", 0.3, 0.3)),
    problem("4", sample("4", 0.2, 0.9), sample("4", 0.4, 0.8), sample("5", 0.9, 0.1), sample("5", 0.6, 0.7)),
)
ALL_RIGHT = tuple(problem(p["gold"], *[sample(p["gold"], 0.5)] * 4) for p in PROBLEMS)


def stored(path: Path, problems: Sequence[dict[str, Any]] = PROBLEMS, **settings: Any) -> Path:
    """A file of samples from elsewhere; with settings, the directory of a run."""
    file = path / RECORDS if settings else path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(p) + "\n" for p in problems))
    if settings:
        known = {"task": "t", "split": "test", "source": "t", "data_sha256": "0", "prompt": "p", "messages": ()}
        write_manifest(path, Manifest(Settings(**{**known, "model": "m", **settings}), Server()))
    return path


def rows(path: Path, *options: object) -> dict[str, dict[str, Any]]:
    out = path.parent / "out.json"
    done = rescore(path, *options, "--out", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())["rows"]
    return {f"{row['measure']}@{row['k'] or 'all'} {row['aggregation']}": row for row in found}


def test_every_measure_aggregation_and_size_that_the_samples_allow(tmp_path: Path) -> None:
    found = rows(stored(tmp_path / "samples.jsonl"))
    unscored = {f"{measure}@{k} None" for measure in ("pass", "majority") for k in (1, 2, 4)}
    hows = ("last", "min", "prod", "mean")
    assert set(found) == unscored | {f"{m}@{k} {how}" for m in ("best", "weighted") for k in (1, 2, 4) for how in hows}
    assert all(row["all_subsets"] and row["low"] <= row["mean"] <= row["high"] for row in found.values())


def test_the_figures(tmp_path: Path) -> None:
    found = rows(stored(tmp_path / "samples.jsonl"))
    assert found["pass@1 None"]["mean"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert found["pass@2 None"]["mean"] == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert found["pass@4 None"]["mean"] == 1
    assert found["majority@4 None"]["mean"] == pytest.approx((0 + 1 / 2) / 2)
    assert found["best@4 last"]["mean"] == pytest.approx((0 + 1) / 2)
    assert found["best@4 last"]["method"] == "wilson"
    assert found["best@4 min"]["mean"] == pytest.approx((0 + 0) / 2)
    assert found["weighted@4 last"]["mean"] == pytest.approx((0 + 1) / 2)
    assert found["weighted@4 prod"]["mean"] == 0


def test_the_stored_score_is_used_where_no_aggregation_is_asked_for(tmp_path: Path) -> None:
    problems = [
        problem("1", sample("1", score=0.2, completion_tokens=30), sample("2", score=0.9, completion_tokens=10))
    ]
    found = rows(stored(tmp_path / "samples.jsonl", problems), "--selector", "best", "--k", "1,2")
    assert {name: row["mean"] for name, row in found.items()} == {"best@1 None": 0.5, "best@2 None": 0}
    assert [row["completion_tokens"] for row in found.values()] == [20, 40]


def test_a_table_is_printed_and_written_as_markdown(tmp_path: Path) -> None:
    file = stored(tmp_path / "samples.jsonl")
    done = rescore(file, "--selector", "weighted", "--aggregation", "min", "--k", "1,2,4", "--out", tmp_path / "a.md")
    assert done.exit_code == 0, done.output
    written = (tmp_path / "a.md").read_text()
    for label in ("weighted@1 (min)", "weighted@2 (min)", "weighted@4 (min)"):
        assert label in done.output
        assert f"| {label} |" in written
    assert "2 problems with 4 samples each" in done.output
    assert "pass@" not in done.output


def test_answers_without_text_are_enough(tmp_path: Path) -> None:
    problems = [problem("7", {"answer": 7}, {"answer": "8"}, {"answer": "7.0"}, id="q", question="Which?")]
    assert rows(stored(tmp_path / "samples.jsonl", problems))["majority@3 None"]["mean"] == 1


def test_two_runs_are_compared_on_the_problems_that_both_have(tmp_path: Path) -> None:
    one = stored(tmp_path / "one.jsonl", [*ALL_RIGHT, problem("9", sample("9", 0.5))][:2])
    other = stored(tmp_path / "other.jsonl", [*PROBLEMS, problem("9", *[sample("9", 0.5)] * 4)])
    found = rows(one, "--against", other, "--selector", "best", "--aggregation", "min", "--k", "4")
    row = found["best@4 min"]
    assert row["difference"]["mean"] == 1
    assert row["mcnemar"] == {"only_one": 2, "only_other": 0, "p": 0.5}
    assert rows(one, "--against", other, "--selector", "pass", "--k", "1")["pass@1 None"]["mcnemar"] is None
    printed = rescore(one, "--against", other, "--k", "4").output
    assert "2 problems that both have, of 2 and 3" in printed
    assert "2 : 0" in printed


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([problem("1", sample("1"), id="x")], "have no problem in common"),
        ([problem("2", sample("1"))], "record '1' has the gold answer '1'"),
    ],
)
def test_runs_on_different_problems_are_not_compared(
    tmp_path: Path, problems: list[dict[str, Any]], message: str
) -> None:
    done = rescore(stored(tmp_path / "one.jsonl"), "--against", stored(tmp_path / "other.jsonl", problems))
    assert done.exit_code == 1
    assert message in done.output


SCORED_ONCE = problem("1", sample("1", score=0.5), sample("1"))


@pytest.mark.parametrize(
    ("options", "problems", "message"),
    [
        (["--k", "8"], PROBLEMS, "k is 8, and record '1' has 4 samples"),
        (["--selector", "best"], [problem("1", sample("1"), id="q7")], "record 'q7': samples.0.score is not given"),
        (["--aggregation", "min"], [PROBLEMS[0], problem("1", sample("1"))], "record '2': samples.0.step_scores"),
        (["--selector", "weighted"], [SCORED_ONCE], "samples.1.score is not given"),
        ([], [SCORED_ONCE], "samples.1.score is not given"),
        ([], [problem("1")], "record '1' has no samples"),
        ([], [{"samples": [sample("1")]}], "samples.jsonl:1: gold"),
        ([], [problem("1", {"score": 0.5})], "samples.0 has neither text nor answer"),
        ([], [], "there are no records"),
    ],
)
def test_what_cannot_be_rescored_is_named(
    tmp_path: Path, options: list[str], problems: Sequence[dict[str, Any]], message: str
) -> None:
    done = rescore(stored(tmp_path / "samples.jsonl", problems), *options)
    assert done.exit_code == 1
    assert message in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "2,none"], "got 'none'"),
        (["--k", "0"], "got '0'"),
        (["--selector", "worst"], "one of pass, majority, best, weighted, got 'worst'"),
        (["--aggregation", "max"], "one of last, min, prod, mean, got 'max'"),
        (["--out", "table.xls"], ".json or .md"),
    ],
)
def test_a_wrong_option_is_refused(tmp_path: Path, options: list[str], message: str) -> None:
    done = rescore(stored(tmp_path / "samples.jsonl"), *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_missing_file_and_an_unwritable_result_are_errors(tmp_path: Path) -> None:
    assert "cannot be read" in rescore(tmp_path / "none").output
    done = rescore(stored(tmp_path / "samples.jsonl"), "--out", tmp_path / "no" / "where.json")
    assert done.exit_code == 2
    assert "is in a directory that exists" in done.output


def test_fewer_of_a_searchs_candidates_are_no_smaller_search(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", strategy="beam_search")
    assert set(rows(run, "--selector", "majority")) == {"majority@all None"}
    refused = rescore(run, "--k", "2")
    assert refused.exit_code == 1
    assert "the candidates of beam_search are no independent samples" in refused.output


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"strategy": "best_of_n"}, {"1", "2", "4"}),
        ({"strategy": "self_consistency", "options": {"stopping": "beta"}}, {"all"}),
        ({"model": "m@dvts"}, {"all"}),
        ({"sampling": {"n": 4}}, {"1", "2", "4"}),
    ],
)
def test_samples_are_independent_where_the_strategy_draws_them_so(
    tmp_path: Path, settings: dict[str, Any], sizes: set[str]
) -> None:
    found = rows(stored(tmp_path / "run", **settings), "--selector", "majority")
    assert {name.split()[0].partition("@")[2] for name in found} == sizes


def test_all_takes_what_each_problem_has(tmp_path: Path) -> None:
    uneven = [PROBLEMS[0], problem("4", sample("4", 0.5)), problem("3", error="the prompt is too long")]
    file = stored(tmp_path / "samples.jsonl", uneven)
    assert rows(file, "--selector", "majority", "--k", "all")["majority@all None"]["mean"] == pytest.approx(1 / 3)
    assert set(rows(file, "--selector", "pass")) == {"pass@1 None"}


def returned(path: Path, *hits: bool, **settings: Any) -> Path:
    """A run with one sample a problem, and what it answered."""
    problems = [
        problem(p["gold"], sample(p["gold"] if hit else "0"), id=str(i), correct=hit)
        for i, (p, hit) in enumerate(zip(PROBLEMS, hits, strict=True))
    ]
    return stored(path, problems, **settings)


def pool(path: Path) -> Path:
    return stored(path, [{**p, "id": str(i)} for i, p in enumerate(PROBLEMS)])


def test_votes_are_held_against_what_a_run_of_one_sample_answered(tmp_path: Path) -> None:
    many, one = pool(tmp_path / "many.jsonl"), returned(tmp_path / "one.jsonl", True, False)
    out = tmp_path / "out.json"
    for first, second, sides in ((many, one, ("first", "second")), (one, many, ("second", "first"))):
        done = rescore(first, "--against", second, "--selector", "majority", "--k", "1,2,4", "--out", out)
        assert done.exit_code == 0, done.output
        found = json.loads(out.read_text())["rows"]
        assert [[row[side]["measure"] for side in sides] for row in found] == [
            ["majority", "majority"],
            ["majority", "returned"],
            ["majority", "returned"],
        ]
        assert [row[sides[0]]["k"] for row in found] == [1, 2, 4]
        assert all(row[sides[1]]["mean"] == 0.5 for row in found)
        assert "what the run itself answered" in done.output


def test_a_search_is_held_against_votes_by_its_answer(tmp_path: Path) -> None:
    beam = returned(tmp_path / "beam", True, False, strategy="beam_search", options={"n": 4})
    done = rescore(pool(tmp_path / "many.jsonl"), "--against", beam, "--selector", "majority", "--k", "4")
    assert done.exit_code == 0, done.output
    assert "majority@4 : returned" in done.output


def test_two_runs_of_one_answer_each_are_compared_by_it(tmp_path: Path) -> None:
    beam = returned(tmp_path / "beam", True, False, strategy="beam_search", options={"n": 4})
    done = rescore(returned(tmp_path / "one.jsonl", True, True), "--against", beam)
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.output.splitlines() if "returned │" in line]
    assert [cell.strip() for cell in line.split("│")[1:3]] == ["100.0", "50.0"]


def test_an_answer_that_nobody_graded_is_named(tmp_path: Path) -> None:
    ungraded = [{**problem("1", sample("1"), sample("2")), "id": "0"}]
    beam = stored(tmp_path / "beam", ungraded, strategy="beam_search", options={"n": 2})
    done = rescore(pool(tmp_path / "many.jsonl"), "--against", beam, "--k", "2", "--selector", "majority")
    assert done.exit_code == 1
    assert "has no `correct`" in done.output
