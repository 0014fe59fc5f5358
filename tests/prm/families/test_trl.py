"""Against how TRL's PRMTrainer lays out what it trains on: the label is on a separator's last token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION, qwen_tokenizer

from prm import PRMError, detect
from prm.families.detect import build
from prm.families.trl import TRL

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

CONFIG = {"architectures": ["Qwen2ForTokenClassification"]}


def published(directory: Path, steps: list[str], separator: str) -> list[float]:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    model: Any = transformers.AutoModelForTokenClassification.from_pretrained(directory).eval()
    between = tokenizer.encode(separator, add_special_tokens=False)
    ids = tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    scores = []
    for step in steps:
        ids = ids + tokenizer(step, add_special_tokens=False)["input_ids"] + between
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits
        scores.append(logits.softmax(-1)[0, -1, 1].item())
    return scores


@pytest.mark.parametrize("separator", ["\n\n", "\n", "<sep>"])
@pytest.mark.parametrize("steps", [["There are 2 and 3."], ["There are 2.", "2 + 3 = 5.", "naïve 数学 🙂", "a\n\nb"]])
def test_scores_are_those_of_training(saved: Callable[[str], Path], steps: list[str], separator: str) -> None:
    expected = published(saved("trl"), steps, separator)
    assert score(saved("trl"), QUESTION, [steps], separator=separator) == [pytest.approx(expected, abs=1e-5)]


def test_a_separator_has_to_be_said() -> None:
    tokenizer = qwen_tokenizer()
    with pytest.raises(PRMError, match=r"name it, or write it into its config\.json as prm_separator"):
        detect(CONFIG, tokenizer, "somebody/some-PRM")
    with pytest.raises(PRMError, match="text that has tokens"):
        TRL(tokenizer, "")
    said = detect({**CONFIG, "prm_separator": "\n"}, tokenizer, "somebody/some-PRM")
    known = detect(CONFIG, tokenizer, "HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2")
    assert tokenizer.decode(said.layouts("q", ["a", "b"])[0].token_ids) == "qa\nb\n"
    assert tokenizer.decode(known.layouts("q", ["a", "b"])[0].token_ids) == "qa\n\nb\n\n"


def test_other_classifiers_are_refused() -> None:
    names = {"id2label": {"0": "O", "1": "PER", "2": "LOC"}}
    with pytest.raises(PRMError, match="tells two classes apart, got 3"):
        build("trl", {**CONFIG, **names}, qwen_tokenizer(), "ner", separator="\n")


def test_its_last_step_is_its_score() -> None:
    assert TRL.aggregation == "last"
