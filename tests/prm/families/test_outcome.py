"""Against sequence classification in transformers: the chat of question and answer, scored at its last token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION, llama_tokenizer

from prm import Classes, PRMError, Sigmoid, detect
from prm.families.detect import build
from prm.families.outcome import Outcome

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

STEPS = ["There are 2.", "2 + 3 = 5.", "naïve 数学 🙂"]
KIND = {"architectures": ["LlamaForSequenceClassification"]}


def published(directory: Path, solution: str) -> Any:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    chat = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": solution}]
    ids = tokenizer.encode(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)
    with torch.no_grad():
        logits: Any = model(torch.tensor([ids])).logits[0]
    return logits


def test_each_beginning_is_scored_as_a_whole_solution(saved: Callable[[str], Path]) -> None:
    directory = saved("outcome")
    expected = [published(directory, "\n\n".join(STEPS[: k + 1])).sigmoid().item() for k in range(3)]
    assert score(directory, QUESTION, [STEPS]) == [pytest.approx(expected, abs=1e-5)]


def test_of_two_classes_the_second_is_read(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_labels=2,
        pad_token_id=4,
    )
    torch.manual_seed(0)
    transformers.LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    expected = published(tmp_path, STEPS[0]).softmax(-1)[1].item()
    assert score(tmp_path, QUESTION, [STEPS[:1]]) == [pytest.approx([expected], abs=1e-5)]


def test_the_head_is_the_configs() -> None:
    tokenizer = llama_tokenizer()
    assert detect({**KIND, "id2label": {"0": "LABEL_0"}}, tokenizer).head == Sigmoid()
    assert detect(KIND, tokenizer).head == Classes(right=1)
    with pytest.raises(PRMError, match="one value or two classes, got 3"):
        build("outcome", {**KIND, "id2label": {"0": "a", "1": "b", "2": "c"}}, tokenizer)


def test_a_turn_without_an_end_is_refused() -> None:
    tokenizer = llama_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}<|eot_id|>{{ m.role }}<|eot_id|>{{ m.content }}{% endfor %}"
    with pytest.raises(PRMError, match="does not end a turn"):
        Outcome(tokenizer, Sigmoid())


def test_its_last_step_is_its_score() -> None:
    assert Outcome.aggregation == "last"
