"""`tts-bench prm-train` on a tiny model: it learns, its figures are right, and what it writes is what it scored."""

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from serving import serving
from slipping import GOLD, ROLLOUTS, STEPS, World, arriving, first_error, solution
from typer import Typer
from typer.testing import CliRunner

from bench.prm_training import prm_data
from bench.prm_training import train as prm_train
from bench.prm_training.evaluate import best_of_n, step_auc
from bench.prm_training.labels import LabelledSolution, solution_id
from bench.prm_training.models import HeadKind, load, save
from bench.prm_training.train import TrainingError, fit, split_by_problem, targets_of
from bench.prm_training.tuning import Example, Options, Tuned, example, packed, score, train
from bench.stored.records import RecordWriter, SampleRecord
from prm import PRMError, split_steps
from prm.backend.reference import compute
from prm.families.contract import Layout
from tts_server.engines.fake import FakeEngine

HEADS: tuple[HeadKind, ...] = ("labels", "trl")


def labelled(problem: int, number: int, slip: int, **fields: Any) -> LabelledSolution:
    """A solution that is wrong from step `slip` on."""
    text = solution(slip)
    steps = split_steps(text)
    first = first_error(steps)
    labels = tuple(int(first is None or k < first) for k in range(len(steps)))
    answer = GOLD if first is None else "8"
    made = LabelledSolution(
        id=solution_id(f"p{problem}", number),
        problem=f"p{problem}",
        number=number,
        question=f"What is question {problem}?",
        gold=GOLD,
        samples=(SampleRecord(text=text, answer=answer, finish_reason="stop"),),
        answer=answer,
        correct=first is None,
        steps=steps,
        labels=labels,
        values=tuple(map(float, labels)),
        rollouts=(4,) * len(steps),
    )
    return replace(made, **fields)


def world(problems: int = 8, solutions: int = 3) -> list[LabelledSolution]:
    return [labelled(p, k, (3 * p + 2 * k) % (STEPS + 1)) for p in range(problems) for k in range(solutions)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model, "LINES", ["a slip So far: right wrong Step fine. The answer is"] * 9)
        return str(tiny_model.save_tiny_model(tmp_path_factory.mktemp("base")))


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    with RecordWriter(tmp_path / "labels") as writer:
        for solved in world():
            writer.append(solved)
    return tmp_path / "labels"


def command(*arguments: str) -> Any:
    app = Typer()
    app.command()(prm_train.command)
    return CliRunner().invoke(app, [*arguments])


def examples(tuned: Tuned, solutions: Sequence[LabelledSolution]) -> list[Example]:
    return [example(tuned.family, s.question, s.steps, targets_of(s, "hard"), s.id, 500) for s in solutions]


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_falls_and_steps_are_told_apart(base: str, head: HeadKind) -> None:
    options = Options(epochs=4, batch=4, learning_rate=1e-2, dropout=0.0)
    tuned = load(base, head, options)
    split = split_by_problem(world(), 0.25, 0)
    before = score(tuned, examples(tuned, split.held_out), 4096)
    losses: list[float] = []
    train(tuned, examples(tuned, split.train), options, losses.append)
    after = score(tuned, examples(tuned, split.held_out), 4096)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    assert step_auc(split.held_out, before).value < 0.9 < step_auc(split.held_out, after).value
    assert all(0 <= value <= 1 for scores in after.values() for value in scores)


@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_trains_the_same_model(base: str, head: HeadKind) -> None:
    def trained(seed: int) -> dict[str, tuple[float, ...]]:
        options = Options(epochs=1, batch=8, seed=seed)
        tuned = load(base, head, options)
        train(tuned, examples(tuned, world(2)), options, lambda _: None)
        return score(tuned, examples(tuned, world(2)), 4096)

    assert trained(1) == trained(1) != trained(2)


@pytest.mark.parametrize("head", HEADS)
def test_half_precision_trains_as_well(base: str, head: HeadKind) -> None:
    options = Options(epochs=4, batch=4, learning_rate=1e-2)
    tuned = load(base, head, options, "bfloat16")
    assert {str(parameter.dtype) for parameter in tuned.trained} == {"torch.float32"}
    losses: list[float] = []
    train(tuned, examples(tuned, world()), options, losses.append)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


@pytest.mark.parametrize("head", HEADS)
def test_accumulated_passes_are_one_large_batch(base: str, head: HeadKind) -> None:
    def trained(micro_tokens: int) -> tuple[list[float], dict[str, tuple[float, ...]]]:
        options = Options(epochs=1, batch=8, micro_tokens=micro_tokens, dropout=0.0, learning_rate=1e-3)
        tuned, losses = load(base, head, options), list[float]()
        # The lengths differ, so each pass has another number of steps.
        varied = [
            replace(s, steps=s.steps[: 1 + k % STEPS], labels=s.labels[: 1 + k % STEPS]) for k, s in enumerate(world(2))
        ]
        train(tuned, examples(tuned, varied), options, losses.append)
        return losses, score(tuned, examples(tuned, varied), micro_tokens)

    one, many = trained(10**6), trained(1)
    assert many[0] == pytest.approx(one[0], abs=1e-4)
    assert many[1].keys() == one[1].keys()
    assert all(many[1][id_] == pytest.approx(one[1][id_], abs=1e-3) for id_ in one[1])


def test_labels_that_are_not_known_are_not_learnt(base: str) -> None:
    def trained(labels: tuple[int | None, ...], steps: int) -> float:
        losses: list[float] = []
        options = Options(epochs=1, batch=1)
        tuned = load(base, "labels", options)
        solved = labelled(0, 0, STEPS)
        train(
            tuned, examples(tuned, [replace(solved, steps=solved.steps[:steps], labels=labels)]), options, losses.append
        )
        return losses[0]

    unknown = (None,) * (STEPS - 2)
    # What follows a step changes nothing before it.
    assert trained((1, 0, *unknown), STEPS) == pytest.approx(trained((1, 0), 2), rel=1e-5)


def test_scores_are_those_of_a_plain_forward_pass(base: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned = load(base, "labels", Options())
    solved = labelled(0, 0, 3)
    (scores,) = score(tuned, examples(tuned, [solved]), 4096).values()
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    right, wrong = (tokenizer.encode(word)[0] for word in (" right", " wrong"))
    text = f"<|im_start|>user\n{solved.question}<|im_end|>\n<|im_start|>assistant\n"
    for step, told in zip(solved.steps, scores, strict=True):
        text += f"{step}\nSo far:"
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(text)])).logits[0, -1]
        assert told == pytest.approx(torch.softmax(logits[[right, wrong]], 0)[0].item(), abs=1e-4)
        text += "\n\n"


def test_an_adapter_is_written_with_what_it_answers(base: str, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    options = Options(epochs=1, learning_rate=5e-3)
    tuned = load(base, "labels", options)
    train(tuned, examples(tuned, world(2)), options, lambda _: None)
    (one,) = examples(tuned, [labelled(0, 0, 2)])
    (wanted,) = score(tuned, [one], 4096).values()
    save(tuned, tmp_path / "prm", base, {"command": "mine"})
    about = json.loads((tmp_path / "prm" / "prm.json").read_text())
    assert about == {"family": "labels", "aggregation": "last", "right": " right", "wrong": " wrong", "base": base}
    assert json.loads((tmp_path / "prm" / "training.json").read_text()) == {"command": "mine"}
    assert {path.name for path in tmp_path.iterdir()} == {"prm"}
    head: Any = tuned.family.head
    with torch.no_grad():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "prm"))
        logits = model(torch.tensor([one.layout.token_ids])).logits[0, list(one.layout.ends)]
    assert torch.softmax(logits[:, [head.right, head.wrong]], -1)[:, 0].tolist() == pytest.approx(wanted, abs=1e-4)
    request = {"path": base, "config": {}, "head": ["LabelTokens", asdict(head)], "adapter": str(tmp_path / "prm")}
    (served,) = compute(request | {"layouts": [asdict(one.layout)]})
    assert served == pytest.approx(wanted, abs=1e-4)


def test_a_classification_model_is_loaded_by_its_family(base: str, tmp_path: Path) -> None:
    from prm.backend.local import load_prm

    options = Options(epochs=1, learning_rate=5e-3)
    tuned = load(base, "trl", options)
    train(tuned, examples(tuned, world(2)), options, lambda _: None)
    solved = labelled(0, 0, 2)
    (wanted,) = score(tuned, examples(tuned, [solved]), 4096).values()
    save(tuned, tmp_path / "prm", base, {})

    async def main() -> None:
        prm: Any = load_prm(str(tmp_path / "prm"))
        await prm.backend.start()
        try:
            (found,) = await prm.score(solved.question, [solved.steps])
        finally:
            await prm.backend.close()
        assert found.scores == pytest.approx(wanted, abs=1e-4)

    asyncio.run(main())


def test_a_model_that_cannot_be_written_leaves_nothing(base: str, tmp_path: Path) -> None:
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm" / "mine").touch()
    with pytest.raises(OSError, match="prm"):
        save(load(base, "labels", Options()), tmp_path / "prm", base, {})
    assert [path.name for path in tmp_path.iterdir()] == ["prm"]


@pytest.mark.parametrize("head", HEADS)
def test_the_command_trains_evaluates_and_writes(base: str, labels: Path, tmp_path: Path, head: str) -> None:
    out, report = tmp_path / "prm", tmp_path / "report.md"
    arguments = ["--labels", str(labels), "--base", base, "--out", str(out), "--head", head, "--report", str(report)]
    done = command(*arguments, "--epochs", "1", "--batch", "8", "--held-out", "0.25")
    assert done.exit_code == 0, done.output
    text = report.read_text()
    assert "2 problems with 6 solutions" in text
    assert "step AUC after training" in text
    assert "| oracle |" in text
    assert "seed 0" in text
    assert out.is_dir()
    notes = json.loads((out / "training.json").read_text())
    assert notes["options"]["epochs"] == 1
    again = command(*arguments)
    assert again.exit_code == 1
    assert "exists" in again.output


def test_the_whole_recipe(base: str, tmp_path: Path) -> None:
    """From questions with gold answers to a reward model that tells slips, without a human."""
    questions, out = tmp_path / "questions.jsonl", tmp_path / "prm"
    rows = [{"question": f"What is question {i}?", "gold": GOLD} for i in range(8)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    commands = Typer()
    commands.command("data")(prm_data.command)
    commands.command("train")(prm_train.command)

    async def labels() -> Any:
        arguments = ["data", "--task", str(questions), "--out", str(tmp_path / "labels"), "--solutions", "3"]
        async with serving(FakeEngine(World())) as http:
            url = str(http.base_url)
            return await asyncio.to_thread(CliRunner().invoke, commands, [*arguments, "--rollouts", "4", "--url", url])

    made = asyncio.run(labels())
    assert made.exit_code == 0, made.output
    arguments = ["train", "--labels", str(tmp_path / "labels"), "--base", base, "--out", str(out), "--targets", "soft"]
    trained = CliRunner().invoke(commands, [*arguments, "--epochs", "10", "--batch", "4", "--learning-rate", "0.01"])
    assert trained.exit_code == 0, trained.output
    assert "shepherd: 3 solutions a problem and 4 rollouts a step" in trained.output
    adapted = {"path": base, "config": {}, "adapter": str(out)}
    family: Any = load(base, "labels", Options()).family
    layouts = [asdict(family.layouts("What is question 9?", split_steps(solution(slip)))[0]) for slip in (2, STEPS)]
    head = ["LabelTokens", asdict(family.head)]
    slipped, right = compute(adapted | {"head": head, "layouts": layouts})
    # It has learnt what share of rollouts arrives.
    assert right[:-1] == pytest.approx([arriving(k) / ROLLOUTS for k in range(STEPS - 1)], abs=0.2)
    assert max(slipped[2:]) < 0.15
    assert all(0 <= value <= 1 for value in slipped + right)


def test_training_that_cannot_begin_says_why(base: str, labels: Path, tmp_path: Path) -> None:
    def said(*changes: str) -> str:
        plain = {"--labels": str(labels), "--base": base, "--out": str(tmp_path / "prm")}
        plain |= dict(zip(changes[::2], changes[1::2], strict=True))
        done = command(*[word for pair in plain.items() for word in pair])
        assert done.exit_code in (1, 2)
        assert not (tmp_path / "prm").exists()
        return str(done.output)

    assert "cannot be read" in said("--labels", str(tmp_path / "none"))
    assert "ends within 5 tokens" in said("--max-len", "5")
    assert "none" in said("--base", str(tmp_path / "none"))
    assert "head" in said("--head", "tail")


def test_labels_must_be_tokens_of_the_model(tmp_path: Path) -> None:
    directory = tiny_model.save_tiny_model(tmp_path)
    with pytest.raises(PRMError, match="right"):
        load(str(directory), "labels", Options())


def test_problems_are_held_out_whole() -> None:
    split = split_by_problem(world(), 0.25, 3)
    train, held_out = ({s.problem for s in part} for part in (split.train, split.held_out))
    assert not train & held_out
    assert (len(train), len(held_out)) == (6, 2)
    assert len(split.train) + len(split.held_out) == len(world())
    assert split == split_by_problem(world()[::-1], 0.2, 3) or set(map(id, split.train)) != set()
    assert {s.problem for s in split_by_problem(world(), 0.25, 4).held_out} != held_out
    with pytest.raises(TrainingError, match="two problems"):
        split_by_problem(world(1), 0.2, 0)


def test_soft_labels_are_shares_and_need_rollouts() -> None:
    solved = labelled(0, 0, 3, values=(0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0))
    assert targets_of(solved, "soft") == [0.75, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0]
    assert targets_of(solved, "hard") == [1, 1, 1, 0, 0, 0, 0]
    cut = replace(solved, labels=(1, 1, 1, 0, 0, 0, None), values=(0.75, 0.5, 0.25, 0.0, 0.0, 0.0, None))
    assert targets_of(cut, "soft")[-1] is None
    with pytest.raises(TrainingError, match="shepherd"):
        targets_of(replace(solved, values=(None, 0.5, 0.25, 0.0, 0.0, 0.0, 0.0)), "soft")


def test_a_long_solution_is_cut_behind_a_whole_step(base: str) -> None:
    family = load(base, "labels", Options()).family
    solved = labelled(0, 0, 2)
    whole = example(family, solved.question, solved.steps, solved.labels, solved.id, 10**6)
    third = whole.layout.ends[2]
    cut = example(family, solved.question, solved.steps, solved.labels, solved.id, third + 1)
    assert cut.layout == Layout(whole.layout.token_ids[: third + 1], whole.layout.ends[:3])
    assert cut.targets == (1, 1, 0)
    assert (
        example(family, solved.question, solved.steps, solved.labels, solved.id, third).layout.ends
        == cut.layout.ends[:2]
    )


def test_steps_that_are_cut_are_counted(base: str) -> None:
    tuned = load(base, "labels", Options())
    solved = [labelled(0, 0, 2), labelled(1, 0, STEPS, labels=(None,) * STEPS)]
    third = examples(tuned, solved)[0].layout.ends[2]
    training = fit(tuned, solved, "hard", third + 1, Options(epochs=1))
    assert (training.solutions, training.steps, training.cut, len(training.losses)) == (1, 3, STEPS - 3, 1)


def test_groups_keep_within_their_tokens_and_lose_nothing() -> None:
    lengths = [5, 1, 9, 3, 3, 7, 30]
    all_ = [Example(str(i), Layout(tuple(range(n)), (n - 1,)), (1.0,)) for i, n in enumerate(lengths)]
    groups = list(packed(all_, 20))
    assert sorted(e.id for group in groups for e in group) == sorted(e.id for e in all_)
    for group in groups:
        assert len(group) == 1 or max(len(e.layout.token_ids) for e in group) * len(group) <= 20


def test_auc_counts_pairs_and_halves_ties() -> None:
    solved = [labelled(0, 0, 1), labelled(1, 0, STEPS)]
    scores = {"p0#0": [0.5, 0.5, 0.1, 0.2, 0.3, 0.4, 0.9], "p1#0": [0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.2]}
    right = [0.5, *scores["p1#0"]]
    wrong = scores["p0#0"][1:]
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    found = step_auc(solved, scores)
    assert found.value == pytest.approx(sum(pairs) / len(pairs))
    assert (found.right, found.wrong) == (8, 6)
    assert found.low <= found.value <= found.high


def test_auc_of_one_kind_of_steps_is_not_a_number() -> None:
    assert math.isnan(step_auc([labelled(0, 0, STEPS)], {"p0#0": [0.5] * STEPS}).value)
    assert math.isnan(step_auc([], {}).value)


def test_auc_is_half_for_noise_and_one_for_truth() -> None:
    solved = world(30)
    truth = {s.id: [float(label or 0) for label in s.labels] for s in solved}
    constant = {s.id: [0.5] * STEPS for s in solved}
    assert step_auc(solved, truth).value == step_auc(solved, truth).low == 1
    assert step_auc(solved, constant).value == 0.5


def test_best_of_n_is_what_the_scores_choose() -> None:
    # Problem 0: one right answer of three, seen by the model; problem 1: two of three; problem 2: none.
    slips = [(2, STEPS, 2), (STEPS, STEPS, 2), (1, 1, 1)]
    solved = [labelled(p, k, slip) for p, row in enumerate(slips) for k, slip in enumerate(row)]
    scores = {s.id: [0.5] * (STEPS - 1) + [0.9 if s.correct else 0.1] for s in solved}
    # File order is the order of completion, not of sampling.
    rows = {row.label: row.hits for row in asyncio.run(best_of_n(solved[::-1], scores, "last"))}
    assert rows == {"single": 1, "majority": 1, "best of n, last": 2, "weighted vote, last": 2, "oracle": 2}
    worst = {id_: [1 - score for score in row] for id_, row in scores.items()}
    fooled = {row.label: row.hits for row in asyncio.run(best_of_n(solved, worst, "last"))}
    assert (fooled["best of n, last"], fooled["majority"], fooled["oracle"]) == (0, 1, 2)
