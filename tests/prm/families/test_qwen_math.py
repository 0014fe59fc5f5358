"""Against the recipe of the model's card: a chat, `<extra_0>` after each step, the second of two classes there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION

from prm import detect
from prm.backend.local import read_config

torch: Any = pytest.importorskip("torch")
safetensors: Any = pytest.importorskip("safetensors.torch")
transformers: Any = pytest.importorskip("transformers")

SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."


def published(directory: Path, steps: list[str]) -> list[float]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    weights = safetensors.load_file(directory / "model.safetensors")
    body = transformers.Qwen2Model(transformers.Qwen2Config.from_pretrained(directory)).eval()
    body.load_state_dict({key.removeprefix("model."): value for key, value in weights.items() if key[:5] == "model"})
    chat = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=False)
    ids = torch.tensor([tokenizer.encode(text)])
    with torch.no_grad():
        hidden = body(ids).last_hidden_state
        inner = torch.relu(hidden @ weights["score.0.weight"].T + weights["score.0.bias"])
        logits = inner @ weights["score.2.weight"].T + weights["score.2.bias"]
    chosen: list[float] = logits.softmax(-1)[..., 1][ids == tokenizer.convert_tokens_to_ids("<extra_0>")].tolist()
    return chosen


@pytest.mark.parametrize(
    "steps", [["There are 2 and 3 apples."], ["There are 2.", "2 + 3 = 5.", "naïve 数学 🙂"], ["a\n\nb", "c\nd"]]
)
def test_scores_are_those_of_the_card(saved: Callable[[str], Path], steps: list[str]) -> None:
    expected = published(saved("qwen_math"), steps)
    assert len(expected) == len(steps)
    assert score(saved("qwen_math"), QUESTION, [steps]) == [pytest.approx(expected, abs=1e-5)]


def test_its_authors_multiply_step_scores(saved: Callable[[str], Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved("qwen_math"))
    assert detect(read_config(str(saved("qwen_math"))), tokenizer).aggregation == "prod"
