"""GGUF → plain safetensors, as a process of its own: `python -m tts_server.weights.gguf FILE DIRECTORY`.

Its own process, so that torch and the weights are gone from memory before an engine starts.
"""

import sys
from pathlib import Path

__all__ = ["convert"]

# ChatML models end a turn with the first; some answers of theirs end with the second. A GGUF names only one.
END_TOKENS = ("<|im_end|>", "<|endoftext|>")


def convert(file: Path, directory: Path) -> None:
    """Writes the model and tokenizer of a GGUF file as a model directory that vLLM and Transformers load.

    Raises:
        ImportError: the extra `transformers` is not installed.
        OSError: the file cannot be read or the directory not written.
    """
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig  # noqa: PLC0415

    # Rounding 4-bit weights to bfloat16 changes them by 0.1 % (root mean square), far less than the quantisation did;
    # float32 would double the disk, and from float16 engines would take a range these models were not trained in.
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    vocabulary = tokenizer.get_vocab()
    ends = {tokenizer.eos_token_id, *(vocabulary[token] for token in END_TOKENS if token in vocabulary)}
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
