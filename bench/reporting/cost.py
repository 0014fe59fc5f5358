"""What a run cost: tokens, time, estimated FLOPs, and dollars where there is a price table. Works on records alone."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.stored.manifest import Manifest
from bench.stored.records import Record, RecordError, told

_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(b|m)(?![a-z\d])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of seconds."""

    mean: float
    p50: float
    p95: float


class Prices(BaseModel):
    """Dollars; a price that is not given is 0."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt: float = Field(0.0, ge=0)
    """Of a million computed prompt tokens."""
    cached: float = Field(0.0, ge=0)
    """Of a million prompt tokens from the cache."""
    completion: float = Field(0.0, ge=0)
    """Of a million generated tokens."""
    prm: float = Field(0.0, ge=0)
    """Of a million tokens of the reward model."""
    hour: float = Field(0.0, ge=0)
    """Of an hour of the machine."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a whole run; None is what the server or the user did not tell."""

    problems: int
    completion_tokens: int | None
    """Generated, over all branches."""
    prompt_tokens: int | None
    """Computed prompt tokens over all branches: without those from the cache."""
    cached_tokens: int | None
    prm_tokens: int | None
    """Computed by the reward model."""
    samples: int | None
    wall_s: float | None
    """From the first question to the last answer, without the time between sessions."""
    requests_s: float | None
    """Problems a second."""
    tokens_s: float | None
    """Generated tokens a second."""
    latency: Quantiles | None
    ttft: Quantiles | None
    """Time to the first piece of the answer's text; of streamed runs."""
    flops: float | None
    """2 x weights x tokens, of the model and of the reward model: an estimate without attention."""
    dollars: float | None


def cost_of(
    records: Sequence[Record],
    manifest: Manifest | None = None,
    *,
    parameters: float | None = None,
    prm_parameters: float | None = None,
    prices: Prices | None = None,
) -> Cost:
    """The cost of a run.

    Args:
        records: at least one.
        manifest: tells the time and the model.
        parameters: weights of the model; else those of the manifest, else what the model's name says.
        prm_parameters: weights of the reward model; those of the model if that is its own judge.
        prices: of tokens and time.
    """
    generated = _sum(records, lambda r: r.usage.completion_tokens)
    cached = _sum(records, lambda r: r.usage.cached_prompt_tokens)
    read = _sum(records, lambda r: r.usage.engine_prompt_tokens)
    computed = None if read is None else read - (cached or 0)
    scored = _sum(records, lambda r: r.usage.prm_tokens)
    wall_s = wall_of(records, manifest) if manifest else None
    weights = parameters or (parameters_of(manifest) if manifest else None)
    if prm_parameters is None and manifest and _judges_itself(manifest):
        prm_parameters = weights
    return Cost(
        problems=len(records),
        completion_tokens=generated,
        prompt_tokens=computed,
        cached_tokens=cached,
        prm_tokens=scored,
        samples=_sum(records, lambda r: r.usage.samples),
        wall_s=wall_s,
        requests_s=len(records) / wall_s if wall_s else None,
        tokens_s=generated / wall_s if wall_s and generated is not None else None,
        latency=_quantiles(r.latency_s for r in records),
        ttft=_quantiles(r.ttft_s for r in records),
        flops=_flops(weights, generated, computed, prm_parameters, scored),
        dollars=None if prices is None else _dollars(prices, generated, computed, cached, scored, wall_s),
    )


def wall_of(records: Sequence[Record], manifest: Manifest) -> float | None:
    """Seconds that the run's sessions took; one that was killed took until its last record."""
    finished = [datetime.fromisoformat(record.finished) for record in records if record.finished]
    begun = [datetime.fromisoformat(session.started) for session in manifest.sessions]
    total = 0.0
    for i, session in enumerate(manifest.sessions):
        if session.ended:
            end = datetime.fromisoformat(session.ended)
        else:
            until = begun[i + 1] if i + 1 < len(begun) else None
            end = max((at for at in finished if at >= begun[i] and (until is None or at < until)), default=begun[i])
        total += (end - begun[i]).total_seconds()
    return total or None


def parameters_of(manifest: Manifest) -> float | None:
    """Weights of the model, as the user told them or its name says them (`0.5b`); None where neither does."""
    if manifest.parameters:
        return manifest.parameters
    found = _SIZE.findall((manifest.server.model or manifest.settings.model).replace("_", "-"))
    return float(found[-1][0]) * {"b": 1e9, "m": 1e6}[found[-1][1].lower()] if found else None


def read_prices(path: Path) -> Prices:
    """A price table: a JSON object with some of the fields of `Prices`.

    Raises:
        RecordError: it cannot be read, or names something else.
    """
    try:
        return Prices.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise RecordError(f"{path}: {told(error)}; it may name {', '.join(Prices.model_fields)}") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is no JSON: {error}") from error


def _sum(records: Iterable[Record], count: Callable[[Record], int | None]) -> int | None:
    """Over the answered ones; None where one of them does not tell, because a part of a sum is no sum."""
    counts = [count(record) for record in records if record.error is None]
    return None if not counts or None in counts else sum(c for c in counts if c is not None)


def _quantiles(seconds: Iterable[float | None]) -> Quantiles | None:
    known = sorted(s for s in seconds if s is not None)
    if not known:
        return None
    return Quantiles(mean(known), _at(known, 0.5), _at(known, 0.95))


def _at(ordered: Sequence[float], share: float) -> float:
    """The least value that at least this share of all values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _judges_itself(manifest: Manifest) -> bool:
    return (manifest.settings.options.get("prm") or manifest.server.prm) == "judge"


def _flops(
    weights: float | None, generated: int | None, computed: int | None, prm_weights: float | None, scored: int | None
) -> float | None:
    if weights is None or generated is None or computed is None or (scored and prm_weights is None):
        return None
    return 2 * weights * (generated + computed) + 2 * (prm_weights or 0) * (scored or 0)


def _dollars(
    prices: Prices,
    generated: int | None,
    computed: int | None,
    cached: int | None,
    scored: int | None,
    wall_s: float | None,
) -> float | None:
    """None where something that has a price was not counted."""
    parts = [
        (prices.completion / 1e6, generated),
        (prices.prompt / 1e6, computed),
        (prices.cached / 1e6, cached),
        (prices.prm / 1e6, scored),
        (prices.hour / 3600, wall_s),
    ]
    if any(price and amount is None for price, amount in parts):
        return None
    return math.fsum(price * (amount or 0) for price, amount in parts)
