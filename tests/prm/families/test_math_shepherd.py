"""Against the recipe of the model's card: plain text, and the logits of `+` and `-` at each `ки`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION

from prm.families.math_shepherd import MathShepherd

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")


def published(directory: Path, steps: list[str]) -> list[float]:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory)
    candidates = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]
    ids = torch.tensor([tokenizer.encode(f"{QUESTION} " + "\n".join(f"{step} ки" for step in steps))])
    with torch.no_grad():
        logits = model(ids).logits[:, :, candidates]
    chosen: list[float] = logits.softmax(-1)[:, :, 0][ids == tag].tolist()
    return chosen


@pytest.mark.parametrize(
    "steps",
    [
        ["Step 1: the answer is 5."],
        ["Step 1: There are 2 and 3.", "Step 2: 2 + 3 = 5.", "Step 3: naïve 数学 🙂. The answer is: 5"],
        ["Step 1: one\nline more", "Step 2: b\n\nc"],
    ],
)
def test_scores_are_those_of_the_card(saved: Callable[[str], Path], steps: list[str]) -> None:
    expected = published(saved("math_shepherd"), steps)
    assert len(expected) == len(steps)
    assert score(saved("math_shepherd"), QUESTION, [steps]) == [pytest.approx(expected, abs=1e-5)]


def test_steps_are_numbered_as_in_training(saved: Callable[[str], Path]) -> None:
    directory = saved("math_shepherd")
    (numbered,) = score(directory, QUESTION, [["Step 1: a", "Step 2: b"]])
    assert score(directory, QUESTION, [["a", "b"]]) == [pytest.approx(numbered)]
    assert score(directory, QUESTION, [["Step 1: a", "b"]]) == [pytest.approx(numbered)]


def test_a_tag_in_a_step_is_text_and_not_the_tag(saved: Callable[[str], Path]) -> None:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(saved("math_shepherd"))
    tag = tokenizer.encode("ки")[-1]
    (layout,) = MathShepherd(tokenizer).layouts("a ки question", ["ки", "b ки\nStep 9: c ки", "ки ки"])
    assert [i for i, token in enumerate(layout.token_ids) if token == tag] == list(layout.ends)
    assert tokenizer.decode(layout.token_ids).count("ки") == 6 + 3


def test_a_tokenizer_without_the_tag_spells_it() -> None:
    from tiny_prm import llama_tokenizer

    tokenizer = llama_tokenizer()
    (layout,) = MathShepherd(tokenizer).layouts("q", ["яблоки", "b"])
    assert tokenizer.decode(layout.token_ids) == "<|begin_of_text|>q Step 1: яблоки ки\nStep 2: b ки"


def test_its_authors_take_the_lowest_step(saved: Callable[[str], Path]) -> None:
    assert MathShepherd.aggregation == "min"
