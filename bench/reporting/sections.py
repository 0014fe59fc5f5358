"""The parts of a report: tables, notes, and the pictures beside them. Knows neither page nor files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.reporting import plots
from bench.reporting.data import Groups, Run, RunPair, breakdown, pairs
from bench.reporting.figures import span
from bench.reporting.plots import Curve, Mark
from bench.reporting.verdict import Pooled, VotePair, conclusion, vote_pairs
from bench.rescoring.estimates import Question, Row, load
from bench.rescoring.subsets import Measure
from bench.stats.tables import Sheet, band, count, p_value, percent


class Picture(NamedTuple):
    """A plot, to be looked at on light and on dark paper."""

    name: str
    alt: str
    draw: Callable[[bool], bytes]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    title: str
    notes: list[str]
    sheet: Sheet
    pictures: tuple[Picture, ...] = ()
    swatches: bool = False
    """Whether the table has a row a run, in their order."""

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


class Findings(NamedTuple):
    """What the page says, in its order."""

    conclusion: list[str]
    parts: list[Section]


def findings(runs: Sequence[Run]) -> Findings:
    """All that is found of runs.

    Raises:
        RecordError: samples cannot be voted on.
    """
    compared, (pools, notes) = pairs(runs), _pooled(runs)
    votes = vote_pairs(pools, runs)
    parts = [_accuracy(runs), *_comparisons(compared), *_votes(votes)]
    parts += [_groups(runs, groups) for by in ("level", "subject") if (groups := breakdown(runs, by))]
    return Findings(conclusion(compared, votes), [*parts, *_pools(pools, notes)])


def _accuracy(runs: Sequence[Run]) -> Section:
    by_tokens, by_time = _leading(runs, lambda run: run.tokens), _leading(runs, lambda run: run.seconds)
    columns: dict[str, Callable[[Run], str]] = {
        "run": lambda run: run.name,
        "accuracy, %": lambda run: percent(run.accuracy),
        "95 % interval": lambda run: band(*run.interval),
        "frontier": lambda run: ", ".join(
            name for name, leaders in (("tokens", by_tokens), ("time", by_time)) if run.name in leaders
        ),
        "problems": lambda run: count(len(run.records)),
        "generated tokens": lambda run: count(run.tokens),
        "prompt tokens": lambda run: count(_each(run, run.cost.prompt_tokens)),
        "reward model tokens": lambda run: count(_each(run, run.cost.prm_tokens)) if run.cost.prm_tokens else "",
        "seconds": lambda run: f"{run.seconds:.1f}" if run.seconds is not None else "",
        "seconds, p95": lambda run: f"{run.cost.latency.p95:.1f}" if run.cost.latency else "",
        "first token, s": lambda run: f"{run.cost.ttft.mean:.2f}" if run.cost.ttft else "",
        "FLOPs": lambda run: f"{run.cost.flops / len(run.records):.1e}" if run.cost.flops else "",
        "$": lambda run: f"{run.cost.dollars:.4f}" if run.cost.dollars is not None else "",
        "problems/s": lambda run: f"{run.cost.requests_s:.2f}" if run.cost.requests_s else "",
        "wall time": lambda run: span(run.cost.wall_s) if run.cost.wall_s else "",
    }
    filled = {head: cell for head, cell in columns.items() if any(map(cell, runs))}
    sheet = Sheet(list(filled), [[cell(run) for cell in filled.values()] for run in runs])
    notes = [
        "Intervals are Wilson's, of 95 %. Tokens, seconds and FLOPs are those of one problem, on average; prompt "
        "tokens without those from the cache. On the frontier is what no other run beats in accuracy at the same or a "
        "lower cost; that is about the figures, not about significance.",
        *_warnings(runs),
    ]
    axes: list[tuple[str, str, Callable[[Run], float | None]]] = [
        ("tokens", "generated tokens a problem", lambda run: run.tokens),
        ("time", "seconds a problem", lambda run: run.seconds),
    ]
    pictures = [
        _trade_off(runs, name, label, cost) for name, label, cost in axes if any(cost(r) is not None for r in runs)
    ]
    return Section("Accuracy and cost", notes, sheet, tuple(pictures), swatches=True)


def _each(run: Run, total: int | None) -> float | None:
    return None if total is None else total / len(run.records)


def _leading(runs: Sequence[Run], cost: Callable[[Run], float | None]) -> set[str]:
    known = [run for run in runs if cost(run) is not None]
    return {known[i].name for i in plots.frontier([_mark(run, cost(run) or 0.0) for run in known])}


def _mark(run: Run, x: float) -> Mark:
    return Mark(x, run.accuracy, *run.interval)


def _trade_off(runs: Sequence[Run], name: str, label: str, cost: Callable[[Run], float | None]) -> Picture:
    curves = [
        Curve(run.name, [_mark(run, x)], place) for place, run in enumerate(runs) for x in [cost(run)] if x is not None
    ]
    figures = "; ".join(f"{c.label}: {percent(c.marks[0].share)} % at {c.marks[0].x:,.4g}" for c in curves)
    return Picture(
        f"accuracy-{name}",
        f"Accuracy against {label}. {figures}.",
        lambda dark: plots.trade_off(curves, label, dark=dark),
    )


def _warnings(runs: Sequence[Run]) -> Iterator[str]:
    sets = [frozenset(run.by_id) for run in runs]
    if len(set(sets)) > 1:
        shared = len(frozenset.intersection(*sets))
        yield f"The runs are not of the same problems: {shared} are in all of them. Each accuracy is of its own run's."
    for run in runs:
        if run.missing:
            yield f"{run.name} is unfinished: {run.missing} problems are still to be done."
        if errors := sum(record.error is not None for record in run.records):
            yield f"{run.name}: {errors} problems have no answer because of an error; they count as wrong."
        if run.cost.completion_tokens is None:
            yield f"{run.name} does not tell its tokens and is not in the plot against them."
    known = [run.manifest for run in runs if run.manifest]
    if len({manifest.settings.concurrency for manifest in known}) > 1:
        yield "The runs asked different numbers of problems at once: their times do not compare."
    if len({session.machine for manifest in known for session in manifest.sessions}) > 1:
        yield "The runs were not all made from one machine: their times may not compare."


def _comparisons(compared: Sequence[RunPair]) -> list[Section]:
    if not compared:
        return []
    heads = ("runs", "problems", "difference (95 %)", "only one right", "McNemar's p", "p, adjusted", "significant")
    notes = [
        "The first run's accuracy less the second's, in percentage points, on the problems that both have, with a "
        "paired bootstrap's 95 % interval; on how many problems only the first, and only the second, is right; "
        f"McNemar's exact p, and the same adjusted for {len(compared)} "
        f"{'comparisons' if len(compared) > 1 else 'comparison'} (Holm). Significant is an adjusted p below 0.05."
    ]
    sheet = Sheet(heads, [_pair_cells(pair) for pair in compared], marked=_significant(compared))
    return [Section("Run against run", notes, sheet)]


def _significant(found: Sequence[RunPair | VotePair]) -> list[int]:
    return [row for row, pair in enumerate(found) if pair.significant]


def _votes(found: Sequence[VotePair]) -> list[Section]:
    if not found:
        return []
    heads = ("vote − run", "problems", "difference (95 %)", "p", "p, adjusted", "significant")
    lines = [
        [
            f"{pair.vote} − {pair.run.name}",
            count(pair.problems),
            str(pair.difference),
            p_value(pair.p),
            p_value(pair.adjusted),
            "yes" if pair.significant else "no",
        ]
        for pair in found
    ]
    notes = [
        "What a vote over all stored samples of a run would have reached less what another run answered, in percentage "
        "points, on the problems that both have, with a paired bootstrap's 95 % interval; the p of a paired "
        f"randomisation test, and the same adjusted for {len(found)} such "
        f"{'comparisons' if len(found) > 1 else 'comparison'} (Holm)."
    ]
    return [Section("Votes against runs", notes, Sheet(heads, lines, marked=_significant(found)))]


def _pair_cells(pair: RunPair) -> list[str]:
    return [
        f"{pair.one.name} − {pair.other.name}",
        count(pair.problems),
        str(pair.difference),
        f"{pair.test.only_one} : {pair.test.only_other}",
        p_value(pair.test.p),
        p_value(pair.adjusted),
        "yes" if pair.significant else "no",
    ]


def _groups(runs: Sequence[Run], groups: Groups) -> Section:
    lines = []
    for name, shares in zip(groups.names, groups.shares, strict=True):
        sizes = sorted({share.problems for share in shares if share})
        figures = ["" if s is None else f"{percent(s.accuracy)} ({band(*s.interval)})" for s in shares]
        lines.append([name, " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1])))), *figures])
    curves = [
        Curve(
            run.name,
            [Mark(row, s.accuracy, *s.interval) for row, shares in enumerate(groups.shares) if (s := shares[place])],
            place,
        )
        for place, run in enumerate(runs)
    ]
    shown = [curve for curve in curves if curve.marks]
    picture = Picture(
        f"accuracy-{groups.by}",
        f"Accuracy by {groups.by}; the figures are in the table.",
        lambda dark: plots.breakdown(groups.names, shown, dark=dark),
    )
    sheet = Sheet([groups.by, "problems", *(run.name for run in runs)], lines)
    return Section(f"By {groups.by}", ["Accuracy in percent, with Wilson's 95 % interval."], sheet, (picture,))


def _pooled(runs: Sequence[Run]) -> tuple[list[Pooled], list[str]]:
    """The runs whose samples are independent, with what votes over them reach, and what there is to note of them."""
    pools: list[Pooled] = []
    notes: list[str] = []
    for run in runs:
        sizes = [len(record.samples) for record in run.records if record.samples or record.error is None]
        if min(sizes, default=0) < 2:
            continue
        stored = load(run.path)
        if stored.dependent:
            continue
        lacking = stored.lacking(None)
        if lacking and any(sample.score is not None for record in run.records for sample in record.samples):
            notes.append(f"{run.name}: {lacking}; so best and weighted are left out.")
        measures: Sequence[Measure] = ("pass", "majority") if lacking else ("pass", "majority", "best", "weighted")
        questions = [Question(measure, k) for k in stored.sizes for measure in measures]
        pools.append(Pooled(run, stored, stored.rows(questions)))
    return pools, notes


def _pools(pools: Sequence[Pooled], found: Sequence[str]) -> list[Section]:
    """What the stored samples allow."""
    if not pools:
        return []
    panels = {pool.run.name: pool.rows for pool in pools}
    notes = [
        "From the same samples: what k of them would have reached under each selector, on average over which k "
        "(pass: a perfect choice). In percent, with 95 % of a bootstrap over problems, or Wilson's where every value "
        "is right or wrong. The scores are the stored ones.",
        *found,
    ]
    ks = sorted({row.question.k or 0 for rows in panels.values() for row in rows})
    lines = [line for name, rows in panels.items() for line in _pool_lines(name, rows, ks)]
    curves = {name: _curves(rows) for name, rows in panels.items()}
    picture = Picture(
        "accuracy-samples",
        "Accuracy against the number of samples under each selector; the figures are in the table.",
        lambda dark: plots.scaling(curves, dark=dark),
    )
    sheet = Sheet(("run", "selector", *(f"k = {k}" for k in ks)), lines, names=2)
    return [Section("What the stored samples allow", notes, sheet, (picture,))]


def _pool_lines(name: str, rows: Sequence[Row], ks: Sequence[int]) -> Iterator[list[str]]:
    for measure in dict.fromkeys(row.question.measure for row in rows):
        found = {row.question.k: row for row in rows if row.question.measure == measure}
        shares = {k: f"{percent(row.mean)} ({band(row.interval.low, row.interval.high)})" for k, row in found.items()}
        yield [name, measure, *(shares.get(k, "") for k in ks)]
    tokens = {row.question.k: count(row.completion_tokens) for row in rows}
    if any(tokens.values()):
        yield [name, "generated tokens", *(tokens.get(k, "") for k in ks)]


def _curves(rows: Sequence[Row]) -> list[Curve]:
    measures = dict.fromkeys(row.question.measure for row in rows)
    return [
        Curve(
            measure,
            [
                Mark(row.question.k or 0, row.mean, row.interval.low, row.interval.high)
                for row in rows
                if row.question.measure == measure
            ],
            place,
        )
        for place, measure in enumerate(measures)
    ]
