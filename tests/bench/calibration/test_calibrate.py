"""`tts-bench calibrate` over a pool and a search: the policy, its costs, and what is refused."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from bench.calibration.calibrate import calibrated, command
from bench.calibration.policy_report import conclusion
from bench.calibration.policy_trial import Alone, unbeaten
from bench.calibration.trials import Setting, trials
from bench.rescoring.estimates import load
from bench.stats.intervals import Difference
from bench.stored.manifest import Manifest, Server, Settings, write_manifest
from bench.stored.records import RECORDS
from strategies.allocation import policy_table as policies
from strategies.allocation.policy_table import STOP


def calibrate(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def sample(answer: str, score: float | None = None, tokens: int = 10) -> dict[str, Any]:
    steps = None if score is None else [score]
    return {
        "text": f"\\boxed{{{answer}}}",
        "answer": answer,
        "score": score,
        "step_scores": steps,
        "completion_tokens": tokens,
        "finish_reason": "stop",
    }


def problem(name: str, answers: Sequence[str], *, scores: Sequence[float] = (), **fields: Any) -> dict[str, Any]:
    samples = [sample(answer, scores[i] if scores else None) for i, answer in enumerate(answers)]
    usage = {"completion_tokens": 10 * len(samples), "prm_tokens": 5 * len(samples) if scores else 0}
    return {"id": name, "gold": "1", "samples": samples, "usage": usage, "latency_s": 2.0, **fields}


def run(path: Path, problems: Sequence[dict[str, Any]], strategy: str = "best_of_n", **settings: Any) -> Path:
    path.mkdir(parents=True)
    (path / RECORDS).write_text("".join(json.dumps(p) + "\n" for p in problems))
    messages = ({"role": "system", "content": "Think."}, {"role": "user", "content": "{question}"})
    known = {"task": "t", "split": "test", "source": "t", "data_sha256": "0", "prompt": "p", "messages": messages}
    settings = {**known, "model": "m", "strategy": strategy, "options": {"n": 8}, **settings}
    write_manifest(path, Manifest(Settings(**settings), Server(prm="judge")))
    return path


def problems(number: int, *, scored: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Half of them easy, half hard, eight samples each; scores tell right from wrong."""
    draw = random.Random(seed)
    made = []
    for i in range(number):
        p = 0.85 if i % 2 else 0.15
        answers = ["1" if draw.random() < p else str(draw.randint(2, 5)) for _ in range(8)]
        scores = [0.9 if answer == "1" else 0.1 for answer in answers] if scored else ()
        made.append(problem(str(i), answers, scores=scores))
    return made


def searched(number: int, path: Path) -> Path:
    records = [
        {
            **problem(str(i), ["1" if i % 4 == 0 else "2"]),
            "correct": i % 4 == 0,
            "usage": {"completion_tokens": 100, "prm_tokens": 30},
        }
        for i in range(number)
    ]
    return run(path, records, "beam_search", options={"n": 4})


def test_a_policy_that_the_server_reads_and_a_report(tmp_path: Path) -> None:
    pool = run(tmp_path / "pool", problems(24))
    out, report = tmp_path / "made" / "policy.json", tmp_path / "report"
    done = calibrate(pool, searched(24, tmp_path / "beam"), "--out", out, "--report", report, "--draws", 4)
    assert done.exit_code == 0, done.output
    policy = policies.read(out)
    # The search is steered by the reward model, so the policy is of one.
    assert (policy.model, policy.prm, policy.prompt, policy.pilot.n) == ("m", "judge", "Think.", 4)
    assert policy.source.startswith("pool (SHA-256 ")
    assert "beam (SHA-256 " in policy.source
    assert policy.difficulty is not None
    assert policy.difficulty.problems == 24
    assert policy.difficulty.ece < 0.5
    assert {cell.bin for cell in policy.cells} == {0, 1, 2}
    assert {cell.strategy for cell in policy.cells} <= {STOP, "self_consistency", "beam_search"}
    text = (report / "calibration.md").read_text()
    assert "Difficulty on unseen problems" in text
    assert "| arm alone | oracle hard, 0 to 10 % | " in text
    assert " | predicted hard, 0 to 10 % | " in text
    for picture in ("reliability.png", "frontier.png"):
        assert (report / picture).read_bytes().startswith(b"\x89PNG")
        assert f"]({picture})" in text


def test_it_repeats_with_its_seed(tmp_path: Path) -> None:
    pool = run(tmp_path / "pool", problems(12))
    texts = []
    for seed in (1, 1, 2):
        done = calibrate(pool, "--out", tmp_path / "p.json", "--draws", 3, "--folds", 2, "--seed", seed)
        assert done.exit_code == 0, done.output
        texts.append({**json.loads((tmp_path / "p.json").read_text()), "created": ""})
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_with_scores_the_reward_model_is_named_and_its_tokens_are_paid(tmp_path: Path) -> None:
    stored = load(run(tmp_path / "pool", problems(24, scored=True)))
    done = calibrated([stored], Setting(draws=4), folds=3)
    assert done.policy.prm == "judge"
    assert done.policy.difficulty is not None
    assert done.policy.difficulty.needs_scores
    stops = [cell for cell in done.policy.cells if cell.tokens.mean == 40]
    assert stops
    # Of a pilot that does not agree, all four samples are scored.
    assert all(cell.prm_tokens.mean == 20 for cell in stops)
    assert calibrated([stored], Setting(draws=4, scored=False), folds=3).policy.prm is None


def test_arms_that_cost_less_than_a_scored_pilot_are_shown_as_well(tmp_path: Path) -> None:
    pool = run(tmp_path / "pool", problems(24, scored=True))
    done = calibrate(pool, "--out", tmp_path / "p.json", "--report", tmp_path, "--draws", 4, "--folds", 3)
    assert done.exit_code == 0, done.output
    _, contests = (tmp_path / "calibration.md").read_text().split("## On unseen problems, a budget for all\n")
    # Four votes without scores take 40 tokens.
    assert re.search(r"\| stop \| 40 \| [\d.]+ \| below its pilots \|", contests)
    assert "nan" not in contests


def test_only_what_no_other_beats_is_a_rival() -> None:
    arms = [Alone(0, 10, 0.5), Alone(1, 20, 0.5), Alone(2, 15, 0.4), Alone(3, 20, 0.6), Alone(4, 5, 0.3)]
    assert [alone.arm for alone in unbeaten(arms)] == [4, 0, 3]


def test_what_the_arms_of_one_order_come_to(tmp_path: Path) -> None:
    agreed = problem("agreed", ["2"] * 4 + ["1"] * 4, scores=[0.1] * 4 + [0.9] * 4)
    split = problem("split", ["1", "1", "2", "2", "2", "2", "2", "2"], scores=[0.9] * 2 + [0.2] * 6)
    made = trials(load(run(tmp_path / "pool", [agreed, split])), (), Setting(draws=40))
    arms = {arm.label: place for place, arm in enumerate(made.arms)}
    assert set(arms) == {
        "stop", "self_consistency@8", "self_consistency@8 beta",
        "best_of_n@4 weighted", "best_of_n@8 weighted", "best_of_n@4 best", "best_of_n@8 best",
    }  # fmt: skip
    best, votes = arms["best_of_n@8 best"], arms["self_consistency@8"]
    assert (made.alone.right[best] == 1).all()
    assert (made.alone.prm_tokens[best] == 40).all()
    assert (made.alone.prm_tokens[votes] == 0).all()
    assert (made.alone.tokens[votes] == 80).all()
    # A pilot that agrees is the answer, unscored; it is scored where it does not.
    assert made.agreed.any()
    assert not made.agreed.all()
    assert (made.after.tokens[best][made.agreed] == 40).all()
    assert (made.after.prm_tokens[:, made.agreed] == 0).all()
    assert (made.after.tokens[best][~made.agreed] == 80).all()
    assert (made.after.prm_tokens[best][~made.agreed] == 40).all()
    assert (made.after.prm_tokens[votes][~made.agreed] == 20).all()
    assert np.array_equal(made.after.right[best][made.agreed], made.after.right[0][made.agreed])
    assert np.allclose(made.alone.wall_s[votes], 2.0)
    assert np.allclose(made.alone.wall_s[0], 1.0)


def test_ability_is_of_the_samples_that_the_pilot_has_not_seen(tmp_path: Path) -> None:
    pool = run(tmp_path / "pool", [problem("a", ["1"] * 3 + ["2"] * 3), problem("b", ["1"] * 6)])
    made = trials(load(pool), (), Setting(draws=30))
    share = made.features[0, :, made.names.index("share")]
    # 4 of 6: with three alike in the pilot, one right or none of two is left.
    assert set(made.ability[0][share == 0.75]) <= {0.0, 0.5, 1.0}
    assert set(made.ability[0]) <= {0.0, 0.5, 1.0}
    assert (made.ability[1] == 1).all()
    assert (made.oracle[0] == 0.5).all()


def test_a_search_costs_its_pilot_too(tmp_path: Path) -> None:
    pool = load(run(tmp_path / "pool", problems(8)))
    made = trials(pool, [load(searched(8, tmp_path / "beam"))], Setting(draws=4))
    beam = len(made.arms) - 1
    assert made.arms[beam].label == "beam_search@4"
    assert (made.alone.total[beam] == 130).all()
    assert (made.after.total[beam][~made.agreed] == 170).all()
    assert (made.after.total[beam][made.agreed] == 40).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--edges", "0.5,0.1"], "rising numbers between 0 and 1"),
        (["--edges", "x"], "rising numbers between 0 and 1"),
        (["--aggregation", "sum"], "one of last, min, prod, mean"),
        (["--folds", "99"], "folds are 2 to 12, the number of problems"),
        (["--pilot", "8"], "more than 8 independent samples"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: list[str], message: str) -> None:
    done = calibrate(run(tmp_path / "pool", problems(12)), "--out", tmp_path / "p.json", *options)
    assert done.exit_code != 0
    assert message in " ".join(done.output.replace("│", " ").split())
    assert not (tmp_path / "p.json").exists()


def test_a_policy_that_takes_no_search_needs_no_reward_model(tmp_path: Path) -> None:
    records = [
        {**problem(str(i), ["2"]), "correct": False, "usage": {"completion_tokens": 900, "prm_tokens": 900}}
        for i in range(24)
    ]
    pool, beam = run(tmp_path / "pool", problems(24)), run(tmp_path / "beam", records, "beam_search", options={"n": 4})
    policy = calibrated([load(pool), load(beam)], Setting(draws=4), folds=3).policy
    assert "beam_search" not in {cell.strategy for cell in policy.cells}
    assert policy.prm is None


def test_two_pools_or_none_are_refused(tmp_path: Path) -> None:
    pools = [run(tmp_path / name, problems(4)) for name in ("one", "two")]
    for given in (pools, [searched(4, tmp_path / "beam")]):
        done = calibrate(*given, "--out", tmp_path / "p.json")
        assert done.exit_code == 1
        assert "one run is to be a pool" in done.output


def test_a_search_that_lacks_problems_is_refused(tmp_path: Path) -> None:
    done = calibrate(run(tmp_path / "pool", problems(8)), searched(6, tmp_path / "beam"), "--out", tmp_path / "p.json")
    assert done.exit_code == 1
    assert "2 problems of the pool are not in it, such as '6'" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "other"}, "its model is 'other', the pool's 'm'"),
        (
            {"messages": ({"role": "user", "content": "{question}"},)},
            "its system prompt is 'none', the pool's 'Think.'",
        ),
        ({"options": {"n": 4, "prm": "other"}}, "its reward model is 'other', the pool's 'judge'"),
        ({"options": {"n": 4, "budget": {"max_tokens": 9}}}, "its requests had a budget of their own"),
    ],
)
def test_a_search_of_something_else_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    records = [{**problem(str(i), ["1"]), "correct": True} for i in range(8)]
    beam = run(tmp_path / "beam", records, "beam_search", **changed)
    done = calibrate(run(tmp_path / "pool", problems(8)), beam, "--out", tmp_path / "p.json")
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())


def test_revisions_are_an_arm_beside_votes(tmp_path: Path) -> None:
    """What is the request's, such as its prompt, is none of the arm's options."""
    prompt = {"system_prompt": "boxed", "prm": "judge"}
    records = [{**problem(str(i), ["1"]), "correct": True, "usage": {"completion_tokens": 90}} for i in range(24)]
    refined = run(tmp_path / "refine", records, "self_refine", options={"n": 2, "revisions": 1, **prompt})
    pool = run(tmp_path / "pool", problems(24), options={"n": 8, **prompt})
    done = calibrate(pool, refined, "--out", tmp_path / "p.json", "--draws", 4)
    assert done.exit_code == 0, done.output
    policy = policies.read(tmp_path / "p.json")
    assert policy.prompt == "boxed"
    arms = {cell.strategy: cell.options for cell in policy.cells}
    assert arms["self_refine"] == {"n": 2, "revisions": 1}
    assert policy.agreed is not None
    assert 0.5 < policy.agreed <= 1


def test_samples_from_elsewhere_need_the_model_s_name(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text("".join(json.dumps(p) + "\n" for p in problems(12)))
    done = calibrate(file, "--out", tmp_path / "p.json", "--draws", 2)
    assert done.exit_code == 1
    assert "--model" in done.output
    done = calibrate(file, "--out", tmp_path / "p.json", "--draws", 2, "--model", "m")
    assert done.exit_code == 0, done.output


def test_samples_that_do_not_tell_their_tokens_are_refused(tmp_path: Path) -> None:
    made = problems(8)
    made[3]["samples"][2]["completion_tokens"] = None
    done = calibrate(run(tmp_path / "pool", made), "--out", tmp_path / "p.json")
    assert done.exit_code == 1
    assert "record '3' does not tell completion_tokens" in " ".join(done.output.split())


def test_it_ends_with_whether_the_policy_is_worth_serving(tmp_path: Path) -> None:
    pool = run(tmp_path / "pool", problems(24))
    done = calibrate(pool, "--out", tmp_path / "policy.json", "--report", tmp_path / "report", "--draws", 2)
    assert done.exit_code == 0, done.output
    (last,) = done.output.rstrip().splitlines()[-1:]
    assert re.match(r"This policy (is (worse|better) than|is not shown to be|'s pilots)", last)
    assert f"**{last}**" in (tmp_path / "report" / "calibration.md").read_text()


def contest(low: float, high: float, arm: int = 0, accuracy: float = 0.5) -> Any:
    alone = SimpleNamespace(tokens=1200.0, accuracy=accuracy)
    return SimpleNamespace(arm=arm, alone=alone, gap=Difference((low + high) / 2, low, high))


HELD: Any = SimpleNamespace(trials=SimpleNamespace(arms=[SimpleNamespace(label="a@8"), SimpleNamespace(label="b@16")]))


@pytest.mark.parametrize(
    ("contests", "words"),
    [
        ([contest(0.01, 0.05), contest(-0.08, -0.02, 1)], "is worse than b@16: do not serve it. With as many tokens"),
        ([contest(0.01, 0.05), contest(-0.02, 0.03, 1)], "is better than a@8, and worse than no arm: serve it."),
        ([contest(-0.01, 0.05), contest(-0.02, 0.03, 1, 0.7)], "better or worse than b@16: nothing speaks for serving"),
        ([], "do not serve it"),
    ],
    ids=["worse", "better", "even", "none"],
)
def test_the_conclusion_goes_by_what_the_intervals_exclude(contests: list[Any], words: str) -> None:
    assert words in conclusion(HELD, contests)
