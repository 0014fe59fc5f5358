"""Loading a checkpoint for a head, and refusing one that has no such head."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prm import Classes, LabelTokens, PRMError, Sigmoid
from prm.backend.local import read_config

torch: Any = pytest.importorskip("torch")
transformers: Any = pytest.importorskip("transformers")

from prm.backend.heads import load  # noqa: E402

Saved = Callable[[str], Path]
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}


def test_a_language_models_weights_are_no_reward_models(saved: Saved, tmp_path: Path) -> None:
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)).save_pretrained(tmp_path)
    config = read_config(str(tmp_path)) | {"architectures": ["Qwen2ForProcessRewardModel"]}
    with pytest.raises(PRMError, match=r"lacks the weights score\.0\.bias, score\.0\.weight, score\.2\.bias"):
        load(str(tmp_path), config, Classes(right=1))
    with pytest.raises(PRMError, match=r"lacks the weights v_head\.summary\.bias"):
        load(str(tmp_path), config | {"architectures": ["Qwen2ForPrmModel"]}, Sigmoid())
    with pytest.raises(PRMError, match=r"lacks the weights score\.bias"):
        load(str(tmp_path), config | {"architectures": ["Qwen2ForTokenClassification"]}, Classes(right=1))


def test_a_head_that_cannot_be_read_is_refused(saved: Saved, tmp_path: Path) -> None:
    path = str(saved("rlhflow"))
    with pytest.raises(PRMError, match="architecture 'LlamaForCausalLM' has no head"):
        load(path, read_config(path), Classes(right=1))
    shape = {**SMALL, "intermediate_size": 32}
    transformers.BertForSequenceClassification(transformers.BertConfig(**shape)).save_pretrained(tmp_path)
    with pytest.raises(PRMError, match="class BertForSequenceClassification has no head"):
        load(str(tmp_path), read_config(str(tmp_path)), Classes(right=1))


def test_logits_that_are_not_what_the_head_gives_are_refused(saved: Saved, tmp_path: Path) -> None:
    path = saved("rlhflow")
    for file in path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text()) | {"final_logit_softcapping": 30.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PRMError, match="cannot have final_logit_softcapping"):
        load(str(tmp_path), config, LabelTokens(1, 2))


def test_labels_are_read_with_the_heads_bias(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.PhiForCausalLM(transformers.PhiConfig(**SMALL, intermediate_size=32)).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model(ids).logits[0, :, [7, 9]].softmax(-1)[:, 0]
        loaded = load(str(tmp_path), read_config(str(tmp_path)), LabelTokens(right=7, wrong=9))
        scores = loaded.score(loaded.backbone(input_ids=ids).last_hidden_state[0])
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_head_of_a_model_in_half_precision_is_not(saved: Saved) -> None:
    path = str(saved("qwen_math"))
    loaded = load(path, read_config(path), Classes(right=1), dtype=torch.bfloat16)
    assert loaded.backbone.dtype == torch.bfloat16
    assert loaded.score(torch.zeros(2, 64, dtype=torch.bfloat16)).dtype == torch.float64
