"""Reward models of every family in this process: the reference of the other backends. Needs PyTorch."""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prm.backend.batching import Batcher, OnBatch, Scores
from prm.base import OnTokens, PRMError
from prm.families.contract import Config, FamilyPRM, Head, Layout
from prm.families.detect import build, detect

_GIB = 2**30


class TransformersBackend:
    """Runs a model on a GPU in bfloat16 if there is one, otherwise in float32.

    Calls that run at the same time are read in one batch. States are kept, so that a solution's next step costs its
    own tokens; candidates of a search share what they have in common.

    Args:
        path: a model directory or a hub id.
        config: its `config.json`.
        head: its family's.
        max_len: tokens of the longest layout; by default what the config says.
        batch_tokens: tokens that are computed at once; by default 16384 on a GPU, 2048 otherwise.
        batch_bytes: memory that a batch may take; by default a quarter of what a GPU has free, or 2 GiB.
        cache_bytes: memory for states; by default a third of what a GPU has free, or 2 GiB. 0 keeps none.
        wait_s: seconds that a call waits for others to share its batch.
        args: further arguments of `from_pretrained`, such as `dtype` and `device_map`.
    """

    def __init__(
        self,
        path: str,
        config: Config,
        head: Head,
        *,
        max_len: int | None = None,
        batch_tokens: int | None = None,
        batch_bytes: int | None = None,
        cache_bytes: int | None = None,
        wait_s: float = 0.002,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        self.on_batch: OnBatch | None = None
        """Set it before `start`."""
        self._path = path
        self._config = config
        self._head = head
        self._max_len = max_len
        self._limits = {"batch_tokens": batch_tokens, "batch_bytes": batch_bytes, "cache_bytes": cache_bytes}
        self._wait_s = wait_s
        self._args = dict(args or {})
        self._vocabulary = 0
        self._batcher: Batcher | None = None

    @property
    def max_len(self) -> int:
        if self._max_len is None:
            raise PRMError(f"the reward model {self._path!r} is not started, so its context length is unknown")
        return self._max_len

    @property
    def computed(self) -> int:
        """Tokens computed so far."""
        return self._batcher.computed if self._batcher else 0

    @property
    def waiting(self) -> int:
        """Layouts that wait for a batch."""
        return self._batcher.waiting if self._batcher else 0

    async def start(self) -> None:
        """Loads the model.

        Raises:
            ImportError: the extra `transformers` is not installed.
            OSError: there is no model at the path.
            PRMError: the model cannot be run by this backend.
        """
        await asyncio.to_thread(self._load)

    async def close(self) -> None:
        if self._batcher:
            await asyncio.to_thread(self._batcher.close)

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[Scores]:
        if self._batcher is None:
            raise PRMError(f"the reward model {self._path!r} is not started")
        highest = max((max(layout.token_ids) for layout in layouts), default=0)
        if highest >= self._vocabulary:
            raise PRMError(f"the tokenizer of {self._path!r} has the token {highest}, which its model lacks")
        return await self._batcher.read(layouts, on_tokens)

    def _load(self) -> None:
        with _extra():
            import torch  # noqa: PLC0415

            from prm.backend.heads import load  # noqa: PLC0415
            from prm.backend.incremental import IncrementalReader, Limits  # noqa: PLC0415
        gpu = torch.cuda.is_available()
        device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
        args = {"dtype": dtype, "device_map": device, "trust_remote_code": False, **self._args}
        model = load(self._path, self._config, self._head, **args)
        self._max_len = self._max_len or _length(model.backbone.config, self._path)
        self._vocabulary = model.backbone.get_input_embeddings().num_embeddings
        free = torch.cuda.mem_get_info()[0] if gpu else None
        defaults = {
            "batch_tokens": 16384 if gpu else 2048,
            "batch_bytes": free // 4 if free else 2 * _GIB,
            "cache_bytes": free // 3 if free else 2 * _GIB,
        }
        chosen = {key: value for key, value in self._limits.items() if value is not None}
        reader = IncrementalReader(model.backbone, model.score, Limits(**{**defaults, **chosen}))
        reader.check()
        self._batcher = Batcher(reader, f"prm {self._path}", self._wait_s, self.on_batch)


def load_prm(
    path: str, name: str = "", *, family: str | None = None, separator: str | None = None, **options: Any
) -> FamilyPRM:
    """A reward model on this backend, which is not started yet.

    Args:
        path: a model directory or a hub id.
        name: what `tts.prm` calls it; its path by default.
        family: one of `FAMILIES`; detected by default.
        separator: of steps, for the families that were trained with several.
        options: of `TransformersBackend`.

    Raises:
        ImportError: the extra `transformers` is not installed.
        OSError: there is no model at the path.
        PRMError: its family is unknown, or it lacks what the family needs.
    """
    with _extra():
        from transformers import AutoTokenizer  # noqa: PLC0415
    config = read_config(path)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    layout = (
        build(family, config, tokenizer, path, separator=separator)
        if family
        else detect(config, tokenizer, path, separator=separator)
    )
    return FamilyPRM(layout, TransformersBackend(path, config, layout.head, **options), name or path)


def read_config(path: str) -> dict[str, Any]:
    """Returns a model's `config.json` and its `prm.json`, whose keys get the prefix `prm_`."""
    with _extra():
        from transformers import PretrainedConfig  # noqa: PLC0415
        from transformers.utils.hub import cached_file  # noqa: PLC0415
    config, _ = PretrainedConfig.get_config_dict(path)
    described = cached_file(path, "prm.json", _raise_exceptions_for_missing_entries=False)
    if described:
        with open(described) as file:
            config |= {f"prm_{key}": value for key, value in json.load(file).items()}
    return config


def _length(config: Any, path: str) -> int:
    length: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    if length is None:
        raise PRMError(f"the config of {path!r} has no max_position_embeddings: set max_len")
    return length


@contextlib.contextmanager
def _extra() -> Any:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"A reward model in this process needs PyTorch and Transformers ({error}); in a checkout: "
            "pip install '.[transformers]'."
        ) from error
