"""Against `prepare_input` and the value head of the authors' repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import score
from tiny_prm import QUESTION

from prm.families.skywork import Skywork

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")


def published(directory: Path, lines: list[str]) -> list[float]:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
    weights = torch.load(directory / "pytorch_model.bin")
    model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config.from_pretrained(directory)).eval()
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("v_head")})
    step_token = tokenizer.encode("\n")[-1]
    ids = tokenizer.encode(tokenizer.bos_token + QUESTION + "\n")
    flags = [0] * len(ids)
    for line in lines:
        step = [*tokenizer.encode(line), step_token]
        ids += step
        flags += [0] * (len(step) - 1) + [1]
    with torch.no_grad():
        hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
        values = (hidden @ weights["v_head.summary.weight"].T + weights["v_head.summary.bias"]).squeeze(-1).sigmoid()
    chosen: list[float] = values[torch.tensor([flags]) == 1].tolist()
    return chosen


@pytest.mark.parametrize("steps", [["There are 2 and 3."], ["There are 2.", "2 + 3 = 5.", "naïve 数学 🙂"]])
def test_scores_are_those_of_the_authors(saved: Callable[[str], Path], steps: list[str]) -> None:
    expected = published(saved("skywork"), steps)
    assert score(saved("skywork"), QUESTION, [steps]) == [pytest.approx(expected, abs=1e-5)]


def test_the_last_line_of_a_step_gives_its_score(saved: Callable[[str], Path]) -> None:
    expected = published(saved("skywork"), ["First,", "2 + 3.", "It is", "5."])
    steps = ["First,\n\n2 + 3.", "\nIt is\n \n5.\n"]
    assert score(saved("skywork"), QUESTION, [steps]) == [pytest.approx(expected[1::2], abs=1e-5)]


def test_its_last_step_is_its_score() -> None:
    assert Skywork.aggregation == "last"
