"""Language models of a few thousand random weights, saved as a model directory. They answer gibberish, quickly."""

from pathlib import Path
from typing import Any

EOS = (0, 2)
LINES = ["the answer is four and the question is what", "naïve 数学 🙂 ¼ of the answer"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    """A byte-level tokenizer with ChatML's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=TEMPLATE)


def save_tiny_model(directory: Path, *, window: int | None = None, **generation: Any) -> Path:
    """Writes a model directory.

    Args:
        directory: where.
        window: tokens that attention sees; None is all.
        generation: fields of its generation config.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(directory)
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "eos_token_id": 2,
        "bos_token_id": None,
        # Wide enough apart that rounding does not decide between two tokens.
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    model: Any = (
        MistralForCausalLM(MistralConfig(**shape, sliding_window=window))
        if window
        else LlamaForCausalLM(LlamaConfig(**shape))
    )
    model.generation_config = GenerationConfig(eos_token_id=list(EOS), **generation)
    model.save_pretrained(directory)
    return directory
