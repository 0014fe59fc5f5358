"""Reward models to train: loaded from a base model, written as a directory that `--prm` loads."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from bench.prm_training.tuning import EXTRA, Options, Tuned, adapted
from prm import SEPARATOR, PRMError
from prm.families.contract import FAMILY_KEY, SEPARATOR_KEY, Family
from prm.families.labels import RIGHT, WRONG, Labels
from prm.families.trl import TRL

HeadKind = Literal["labels", "trl"]
"""Two label tokens of the language model, or a token classification head in TRL's format."""
_RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What a config says of logits that are not what the head's weights give; `--prm` takes no such model either."""
DType = Literal["auto", "float32", "bfloat16"]


def load(base: str, kind: HeadKind, options: Options, dtype: DType = "auto") -> Tuned:
    """A model with a fresh adapter, on a GPU if there is one.

    Args:
        base: a model directory or a hub id.
        kind: of head.
        options: the adapter's.
        dtype: of the weights; `auto` is bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ImportError: the extra `train` is not installed.
        OSError: there is no model at `base`.
        PRMError: the tokenizer or the model lacks what the head needs.
    """
    try:
        import torch  # noqa: PLC0415
        from transformers import (  # noqa: PLC0415
            AutoModelForCausalLM,
            AutoModelForTokenClassification,
            AutoTokenizer,
        )
    except ImportError as error:
        raise ImportError(EXTRA) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = {"auto": "bfloat16" if device == "cuda" else "float32"}.get(dtype, dtype)
    tokenizer = AutoTokenizer.from_pretrained(base)
    family: Family = Labels(tokenizer) if kind == "labels" else TRL(tokenizer, SEPARATOR)
    torch.manual_seed(options.seed)
    if kind == "labels":
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=weights)
        if scaled := [key for key in _RESCALED if getattr(model.config, key, None) not in (None, 1)]:
            raise PRMError(
                f"a model that answers by label tokens cannot have {scaled[0]}, which the config of {base!r} sets"
            )
    else:
        model = AutoModelForTokenClassification.from_pretrained(base, dtype=weights, num_labels=2)
    model = adapted(model, options, classifies=kind == "trl")
    return Tuned(model.to(device), tokenizer, family, device, weights)


def save(tuned: Tuned, directory: Path, base: str, notes: Mapping[str, Any]) -> None:
    """Writes the model in one go: an adapter with its `prm.json`, or a whole classification model.

    Args:
        tuned: the model; one with a classification head cannot be trained further.
        directory: must not exist.
        base: what the adapter belongs to.
        notes: how it came about, for `training.json`.

    Raises:
        OSError: the directory exists or cannot be written.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write(tuned, new, base)
        (new / "training.json").write_text(json.dumps(notes, indent=2) + "\n")
        new.chmod(0o755)
        new.rename(directory)
    except BaseException:
        shutil.rmtree(new)
        raise


def _write(tuned: Tuned, directory: Path, base: str) -> None:
    about = {"family": tuned.family.name, "aggregation": tuned.family.aggregation}
    if tuned.family.name == "labels":
        # Whether the vocabulary was changed is no question for a hub.
        tuned.model.save_pretrained(directory, save_embedding_layers=False)
        about |= {"right": RIGHT, "wrong": WRONG, "base": _anywhere(base)}
        (directory / "prm.json").write_text(json.dumps(about, indent=2) + "\n")
        return
    whole = tuned.model.merge_and_unload()
    setattr(whole.config, FAMILY_KEY, tuned.family.name)
    setattr(whole.config, SEPARATOR_KEY, SEPARATOR)
    whole.save_pretrained(directory)
    tuned.tokenizer.save_pretrained(directory)


def _anywhere(base: str) -> str:
    """The model's name from any working directory: a directory's whole path, a hub id as it is."""
    return str(Path(base).resolve()) if Path(base).is_dir() else base
