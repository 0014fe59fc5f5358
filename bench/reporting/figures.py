"""Accuracy, times and costs as a person reads them, and `tts-bench cost`.

tts-bench cost runs/bon8 --parameters 494e6 --prices prices.json
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.reporting.cost import Cost, Quantiles, cost_of, read_prices
from bench.stats.intervals import wilson
from bench.stored.manifest import read_manifest
from bench.stored.records import Record, RecordError, read_records


def command(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.")],
    parameters: Annotated[float | None, typer.Option(help="Weights of the model; else by its name.")] = None,
    prm_parameters: Annotated[float | None, typer.Option(help="Weights of the reward model.")] = None,
    prices: Annotated[
        Path | None,
        typer.Option(help="JSON with dollars: prompt, cached, completion, prm of a million tokens each; hour."),
    ] = None,
) -> None:
    """Says what runs cost: tokens, times, estimated FLOPs and dollars."""
    try:
        table = read_prices(prices) if prices else None
        for run in runs:
            records, manifest = read_records(run), read_manifest(run)
            cost = cost_of(records, manifest, parameters=parameters, prm_parameters=prm_parameters, prices=table)
            typer.echo(run)
            Console().print(summary(records, cost))
    except RecordError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def accuracy(correct: int, done: int) -> str:
    """The share of right answers with Wilson's 95 % interval, in percent."""
    if not done:
        return "accuracy ?"
    low, high = wilson(correct, done)
    return f"accuracy {100 * correct / done:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def span(seconds: float) -> str:
    """A time as a person says it: `42 s`, `3 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def summary(records: Sequence[Record], cost: Cost) -> Table:
    """What a run came to; figures that nobody told are left out."""
    errors = sum(record.error is not None for record in records)
    correct = sum(bool(record.correct) for record in records)
    rows = {
        "accuracy": accuracy(correct, len(records)).removeprefix("accuracy "),
        "problems": f"{len(records)}" + (f", {errors} of them without an answer, which is wrong" if errors else ""),
        **figures(cost),
    }
    table = Table(show_header=False, box=None)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def figures(cost: Cost) -> dict[str, str]:
    """The cost's known figures by name."""
    known: dict[str, str] = {}
    if cost.completion_tokens is not None:
        known["generated"] = (
            f"{cost.completion_tokens:,} tokens, {cost.completion_tokens / cost.problems:,.0f} a problem"
        )
    if cost.prompt_tokens is not None:
        cached = "" if cost.cached_tokens is None else f", {cost.cached_tokens:,} more from the cache"
        known["prompts"] = f"{cost.prompt_tokens:,} tokens computed{cached}"
    if cost.prm_tokens:
        known["reward model"] = f"{cost.prm_tokens:,} tokens"
    if cost.wall_s is not None:
        known["wall time"] = f"{span(cost.wall_s)}, {cost.problems / cost.wall_s:.2f} problems/s"
    if cost.tokens_s is not None:
        known["throughput"] = f"{cost.tokens_s:,.0f} generated tokens/s"
    if cost.latency is not None:
        known["latency"] = _seconds(cost.latency)
    if cost.ttft is not None:
        known["first token"] = _seconds(cost.ttft)
    if cost.flops is not None:
        known["compute"] = f"about {cost.flops:.2g} FLOPs"
    if cost.dollars is not None:
        known["price"] = f"${cost.dollars:,.4f}"
    return known


def _seconds(quantiles: Quantiles) -> str:
    return f"mean {quantiles.mean:.2f} s, p50 {quantiles.p50:.2f} s, p95 {quantiles.p95:.2f} s"
