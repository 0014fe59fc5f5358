"""Against `prm_evaluate.py` of the authors: a chat a step, and the logits of `+` and `-` three from its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION, qwen_tokenizer

from prm import PRMError
from prm.families.rlhflow import RLHFlow

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")


def published(directory: Path, steps: list[str]) -> list[float]:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory)
    candidates = [tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]]
    chat, scores = list[dict[str, str]](), list[float]()
    for k, step in enumerate(steps):
        chat.append({"role": "user", "content": f"{QUESTION} {step}" if k == 0 else step})
        chat.append({"role": "assistant", "content": "+"})
        ids = tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)
        with torch.no_grad():
            # The last two tokens are `+` and the end of the turn.
            logits = model(torch.tensor([ids])).logits[:, -3, candidates]
        scores.append(logits.softmax(-1)[0, 0].item())
    return scores


@pytest.mark.parametrize(
    "steps", [["There are 2 and 3."], ["There are 2.", "2 + 3 = 5.", "+", "naïve 数学 🙂"], ["a\n\nb", "c\nd"]]
)
def test_scores_are_those_of_the_authors(saved: Callable[[str], Path], steps: list[str]) -> None:
    expected = published(saved("rlhflow"), steps)
    assert score(saved("rlhflow"), QUESTION, [steps]) == [pytest.approx(expected, abs=1e-5)]


def test_a_template_that_writes_turns_differently_is_refused() -> None:
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ loop.index }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    with pytest.raises(PRMError, match="writes equal turns differently"):
        RLHFlow(tokenizer)


def test_its_authors_take_the_mean() -> None:
    assert RLHFlow.aggregation == "mean"
