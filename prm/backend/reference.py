"""Scores by one plain forward pass in a process of its own: another backend is compared with it when it starts.

    python -m prm.backend.reference < request.json > scores.json

The process ends with its answer, which frees the memory of the second copy of the weights.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prm.base import PRMError
from prm.families.contract import Classes, Config, Head, LabelTokens, Layout, Sigmoid

_HEADS: dict[str, type[Head]] = {kind.__name__: kind for kind in (LabelTokens, Classes, Sigmoid)}


@dataclass(frozen=True, slots=True)
class Weights:
    """A model on the disk."""

    path: str
    """A directory or a hub id."""
    config: Config
    head: Head
    adapter: str | None = None
    """The directory of a LoRA adapter of it."""


async def reference_scores(weights: Weights, layouts: Sequence[Layout]) -> list[tuple[float, ...]]:
    """The scores at each layout's ends. Cancelling the call ends the process.

    Raises:
        PRMError: the model could not be run.
    """
    request = {
        **{field: getattr(weights, field) for field in ("path", "config", "adapter")},
        "head": [type(weights.head).__name__, asdict(weights.head)],
        "layouts": [asdict(layout) for layout in layouts],
    }
    command = [sys.executable, "-m", __name__]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        output, errors = await process.communicate(json.dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise PRMError(f"the reference scores of {weights.path!r} could not be computed: {last}")
    return [tuple(scores) for scores in json.loads(output)]


def compute(request: dict[str, Any]) -> list[list[float]]:
    """Returns the scores of a request, as the process prints them."""
    import torch  # noqa: PLC0415

    gpu = torch.cuda.is_available()
    try:
        return _computed(request, "cuda" if gpu else "cpu")
    except torch.OutOfMemoryError:
        # An engine may hold all memory of the GPU; one short pass on the CPU takes little time.
        return _computed(request, "cpu")


def _computed(request: dict[str, Any], device: str) -> list[list[float]]:
    import torch  # noqa: PLC0415

    from prm.backend.heads import load  # noqa: PLC0415

    name, fields = request["head"]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    head, adapter = _HEADS[name](**fields), request["adapter"]
    model = load(request["path"], request["config"], head, adapter, dtype=dtype, device_map=device)
    scores = []
    for layout in request["layouts"]:
        ids = torch.tensor([layout["token_ids"]], device=device)
        with torch.inference_mode():
            hidden = model.backbone(input_ids=ids, use_cache=False).last_hidden_state[0, layout["ends"]]
            scores.append(model.score(hidden).tolist())
    return scores


if __name__ == "__main__":
    json.dump(compute(json.load(sys.stdin)), sys.stdout)
