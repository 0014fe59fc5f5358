"""Reward models of every family with a few thousand random weights, in the layout of the real checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTION = "How many apples are 2 apples and 3 apples?"
LINES = [
    "Step 1: the answer is four and the question is what ки",
    "naïve 数学 🙂 ¼ of the answer + or - right wrong ки",
    "How many apples are 2 apples and 3 apples? There are 2 and 3 apples. 2 + 3 = 5. ки",
]

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}| ?", r"\p{N}{1,3}| ?")

QWEN_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nPlease reason step by step.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def qwen_tokenizer(*extra: str, bos_token: str | None = None) -> Any:
    """Qwen2.5's kind: bytes, one digit a token, ChatML."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra]
    return _of_bytes(
        QWEN_SPLIT, specials, QWEN_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=bos_token
    )


def llama_tokenizer() -> Any:
    """Llama 3.1's kind: bytes, headers, a begin-of-text token."""
    from tokenizers.processors import TemplateProcessing

    specials = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|finetune_pad|>"]
    made = _of_bytes(
        LLAMA_SPLIT,
        specials,
        LLAMA_TEMPLATE,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="<|finetune_pad|>",
    )
    bos = (specials[0], made.convert_tokens_to_ids(specials[0]))
    made.backend_tokenizer.post_processor = TemplateProcessing(single=f"{specials[0]} $A", special_tokens=[bos])
    return made


def mistral_tokenizer() -> Any:
    """Mistral 7B's kind: words with a space mark in front, bytes where a character is unknown, `<s>` first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    # A tag and the labels are words of their own, whatever the size of the vocabulary.
    trained.train_from_iterator(LINES + ["ки + -"] * 50, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [tuple(merge) for merge in model["merges"]]
    built = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.add_special_tokens(["<unk>", "<s>", "</s>"])
    built.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=built, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def _of_bytes(split: str, specials: list[str], template: str, **names: Any) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # A blank line and a full stop before one are one token each, as in the real vocabularies.
    tokenizer.train_from_iterator([*LINES, *["the end.\n\nand\n\n"] * 50], trainer)
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens(["<think>", "<tool_call>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **names)


def _shape(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        # Wide enough that scores differ from step to step.
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
        **more,
    }


def save_qwen_math(directory: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2Model

    tokenizer = qwen_tokenizer("<extra_0>")
    config = Qwen2Config(**_shape(tokenizer))
    body, (first, second) = Qwen2Model(config), (torch.nn.Linear(64, 64), torch.nn.Linear(64, 2))
    weights = {f"model.{key}": value for key, value in body.state_dict().items()}
    weights |= {f"score.0.{key}": value for key, value in first.state_dict().items()}
    weights |= {f"score.2.{key}": 10 * value for key, value in second.state_dict().items()}
    tokenizer.save_pretrained(directory)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    _save_config(
        directory,
        config,
        architectures=["Qwen2ForProcessRewardModel"],
        auto_map={
            "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
            "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel",
        },
    )


def save_math_shepherd(directory: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    tokenizer = mistral_tokenizer()
    tokenizer.save_pretrained(directory)
    MistralForCausalLM(MistralConfig(**_shape(tokenizer), sliding_window=None)).save_pretrained(directory)


def save_rlhflow(directory: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(directory)
    LlamaForCausalLM(LlamaConfig(**_shape(tokenizer))).save_pretrained(directory)


def save_skywork(directory: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = qwen_tokenizer(bos_token="<|endoftext|>")
    config = Qwen2Config(**_shape(tokenizer))
    head = torch.nn.Linear(64, 1)
    weights = Qwen2ForCausalLM(config).state_dict()
    weights |= {f"v_head.summary.{key}": value for key, value in head.state_dict().items()}
    tokenizer.save_pretrained(directory)
    torch.save(weights, directory / "pytorch_model.bin")
    _save_config(directory, config, architectures=["Qwen2ForPrmModel"])


def save_trl(directory: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForTokenClassification

    tokenizer = qwen_tokenizer()
    tokenizer.save_pretrained(directory)
    Qwen2ForTokenClassification(Qwen2Config(**_shape(tokenizer))).save_pretrained(directory)


def save_outcome(directory: Path) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = llama_tokenizer()
    tokenizer.save_pretrained(directory)
    LlamaForSequenceClassification(LlamaConfig(**_shape(tokenizer), num_labels=1)).save_pretrained(directory)


def save_labels(directory: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = qwen_tokenizer()
    tokenizer.save_pretrained(directory)
    Qwen2ForCausalLM(Qwen2Config(**_shape(tokenizer))).save_pretrained(directory)
    described = {"family": "labels", "right": " right", "wrong": " wrong", "aggregation": "last"}
    (directory / "prm.json").write_text(json.dumps(described))


def _save_config(directory: Path, config: Any, **more: Any) -> None:
    written = {**config.to_dict(), "model_type": config.model_type, **more}
    (directory / "config.json").write_text(json.dumps(written, default=str))


SAVERS: dict[str, Callable[[Path], None]] = {
    "qwen_math": save_qwen_math,
    "math_shepherd": save_math_shepherd,
    "rlhflow": save_rlhflow,
    "skywork": save_skywork,
    "trl": save_trl,
    "outcome": save_outcome,
    "labels": save_labels,
}
NAMES = {
    "math_shepherd": "math-shepherd-mistral-7b-prm",
    "rlhflow": "Llama3.1-8B-PRM-Deepseek-Data",
}
"""How the directory of a language model that says its family by nothing else has to be called."""


def save_tiny_prm(family: str, parent: Path) -> Path:
    """Writes a model directory of a family, always with the same weights; where it is."""
    import torch

    directory = parent / NAMES.get(family, family)
    directory.mkdir(parents=True)
    torch.manual_seed(0)
    SAVERS[family](directory)
    return directory
