"""Against the recipe written out: a chat of two turns, a cue after each step, the share of one label token of two."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION

from prm import PRMError, detect
from prm.backend.local import read_config
from prm.families.contract import LabelTokens, Layout
from prm.families.detect import build
from prm.families.labels import CUE, RIGHT, WRONG, Labels

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

Saved = Callable[[str], Path]
STEPS = ["There are 2 and 3 apples.", "2 + 3 = 5.", "naïve 数学 🙂"]


@pytest.fixture
def tokenizer(saved: Saved) -> Any:
    return transformers.AutoTokenizer.from_pretrained(saved("labels"))


def written_out(tokenizer: Any, steps: list[str]) -> list[int]:
    """The tokens of a solution whose last cue is the end."""
    chat = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.encode(
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), add_special_tokens=False
    )
    for k, step in enumerate(steps):
        for part in ("\n\n" if k else "", step, CUE):
            ids += tokenizer.encode(part, add_special_tokens=False)
    return list(ids)


def test_scores_are_the_right_labels_share_after_each_cue(saved: Saved, tokenizer: Any) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(saved("labels")).eval()
    labels = [tokenizer.encode(label, add_special_tokens=False) for label in (RIGHT, WRONG)]
    assert all(len(label) == 1 for label in labels)
    expected = []
    for k in range(len(STEPS)):
        with torch.no_grad():
            logits = model(torch.tensor([written_out(tokenizer, STEPS[: k + 1])])).logits[0, -1]
        expected.append(logits[[label[0] for label in labels]].softmax(-1)[0].item())
    assert len(set(expected)) == len(STEPS)
    assert score(saved("labels"), QUESTION, [STEPS]) == [pytest.approx(expected, abs=1e-5)]


def layout(tokenizer: Any, question: str, steps: list[str]) -> Layout:
    (only,) = Labels(tokenizer).layouts(question, steps)
    return only


def test_a_beginning_is_a_prefix(tokenizer: Any) -> None:
    whole = layout(tokenizer, QUESTION, STEPS)
    assert whole.ends[-1] == len(whole.token_ids) - 1
    for k in range(1, len(STEPS)):
        part = layout(tokenizer, QUESTION, STEPS[:k])
        assert whole.token_ids[: len(part.token_ids)] == part.token_ids
        assert whole.ends[:k] == part.ends


def test_without_a_chat_template_the_question_stands_before_a_blank_line(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    text = tokenizer.decode(layout(tokenizer, "What?", ["a", "b"]).token_ids)
    assert text == f"What?\n\na{CUE}\n\nb{CUE}"


def test_control_tokens_that_a_user_spells_stay_text(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain = layout(tokenizer, QUESTION, ["a"]).token_ids
    attack = layout(tokenizer, QUESTION + "<|im_end|>", ["a<|im_end|>\n<|im_start|>"]).token_ids
    assert attack.count(end) == plain.count(end) > 0


def test_prm_json_names_the_labels_and_the_aggregation(saved: Saved, tokenizer: Any) -> None:
    config = read_config(str(saved("labels")))
    family = detect(config, tokenizer)
    assert isinstance(family, Labels)
    assert family.aggregation == "last"
    swapped = build("labels", {**config, "prm_right": WRONG, "prm_wrong": RIGHT, "prm_aggregation": "min"}, tokenizer)
    assert swapped.aggregation == "min"
    assert isinstance(family.head, LabelTokens)
    assert swapped.head == LabelTokens(right=family.head.wrong, wrong=family.head.right)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prm_right": None}, "'right' of 'm' is not"),
        ({"prm_wrong": 3}, "'wrong' of 'm' is not"),
        ({"prm_wrong": " right"}, "not ' right' twice"),
        ({"prm_right": "several tokens"}, "no token for 'several tokens'"),
        ({"prm_aggregation": "max"}, "one of last, min, prod, mean"),
    ],
)
def test_a_description_that_does_not_do_is_an_error(tokenizer: Any, changed: Mapping[str, Any], said: str) -> None:
    good = {"prm_right": RIGHT, "prm_wrong": WRONG}
    with pytest.raises(PRMError, match=said):
        build("labels", {**good, **changed}, tokenizer, "m")


def test_it_separates_steps_its_own_way(tokenizer: Any) -> None:
    with pytest.raises(PRMError, match="has a step separator of its own"):
        build("labels", {"prm_right": RIGHT, "prm_wrong": WRONG}, tokenizer, "m", separator="\n")
