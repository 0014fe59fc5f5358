"""What a report says of several runs: accuracy and cost, who leads, who differs from whom and where. Draws nothing."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

from bench.reporting.cost import Cost, Prices, cost_of
from bench.stats.comparisons import McNemar, differences, holm, mcnemar
from bench.stats.intervals import Difference, wilson
from bench.stored.manifest import Manifest, read_manifest
from bench.stored.records import Record, RecordError, read_records

Grouping = Literal["level", "subject"]


@dataclass(frozen=True)
class Run:
    """The records of one directory."""

    name: str
    path: Path
    records: tuple[Record, ...]
    manifest: Manifest | None
    cost: Cost

    @cached_property
    def by_id(self) -> dict[str, Record]:
        return {record.id: record for record in self.records}

    @property
    def accuracy(self) -> float:
        return sum(map(right, self.records)) / len(self.records)

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(sum(map(right, self.records)), len(self.records))

    @property
    def tokens(self) -> float | None:
        """Generated a problem; None where a record does not tell."""
        return None if self.cost.completion_tokens is None else self.cost.completion_tokens / len(self.records)

    @property
    def seconds(self) -> float | None:
        """A problem's, on average."""
        return self.cost.latency.mean if self.cost.latency else None

    @property
    def about(self) -> str:
        """Strategy and options."""
        if self.manifest is None:
            return ""
        settings = self.manifest.settings
        options = {**settings.options, **settings.sampling}
        return " ".join([settings.strategy or "no strategy", *(f"{name}={value}" for name, value in options.items())])

    @property
    def missing(self) -> int:
        """Problems that the run has yet to do."""
        return max(0, self.manifest.problems - len(self.records)) if self.manifest else 0


def right(record: Record) -> bool:
    return record.correct is True


def read_runs(
    paths: Sequence[Path],
    *,
    prices: Prices | None = None,
    parameters: float | None = None,
    prm_parameters: float | None = None,
) -> list[Run]:
    """The runs, named after their directories; so much of a path as tells them apart.

    Raises:
        RecordError: a run cannot be read, is not graded, or is of another task than the first.
    """
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise RecordError(f"a run is given twice: {', '.join(map(str, paths))}")
    runs = []
    for name, path in zip(_names(resolved), paths, strict=True):
        records, manifest = read_records(path), read_manifest(path)
        for record in records:
            if record.correct is None and record.error is None:
                raise RecordError(
                    f"{path}: record {record.id!r} has no `correct`: a report is of graded runs, `tts-bench rescore` "
                    "takes ungraded samples"
                )
        cost = cost_of(records, manifest, parameters=parameters, prm_parameters=prm_parameters, prices=prices)
        runs.append(Run(name, path, tuple(records), manifest, cost))
    _refuse_other_tasks(runs)
    return runs


def _names(paths: Sequence[Path]) -> list[str]:
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def _refuse_other_tasks(runs: Sequence[Run]) -> None:
    described = [(run, run.manifest.settings) for run in runs if run.manifest]
    for run, settings in described[1:]:
        first, theirs = described[0]
        if settings.data_sha256 != theirs.data_sha256:
            raise RecordError(
                f"{run.path} is of {settings.task} ({settings.split}), {first.path} of {theirs.task} ({theirs.split}) "
                "or of other data: a report is of one set of problems"
            )
    golds: dict[str, tuple[Run, str]] = {}
    for run in runs:
        for record in run.records:
            first, gold = golds.setdefault(record.id, (run, record.gold))
            if gold != record.gold:
                raise RecordError(
                    f"record {record.id!r} has the gold answer {gold!r} in {first.path} and {record.gold!r} in "
                    f"{run.path}: a report is of one set of problems"
                )


class RunPair(NamedTuple):
    """Two runs on the problems that both have."""

    one: Run
    other: Run
    problems: int
    difference: Difference
    """Of the first's accuracy from the second's."""
    test: McNemar
    adjusted: float
    """p, adjusted for the number of pairs (Holm)."""

    @property
    def significant(self) -> bool:
        return self.adjusted < 0.05


def pairs(runs: Sequence[Run]) -> list[RunPair]:
    """Every two runs that share a problem."""
    found = []
    for one, other in combinations(runs, 2):
        common = [record.id for record in one.records if record.id in other.by_id]
        if common:
            hits = [[right(run.by_id[name]) for name in common] for run in (one, other)]
            found.append((one, other, hits[0], hits[1]))
    tests = [mcnemar(ones, others) for _, _, ones, others in found]
    return [
        RunPair(one, other, len(ones), differences([ones], [others])[0], test, p)
        for (one, other, ones, others), test, p in zip(found, tests, holm([test.p for test in tests]), strict=True)
    ]


class Share(NamedTuple):
    """Right answers in a group."""

    right: int
    problems: int

    @property
    def accuracy(self) -> float:
        return self.right / self.problems

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.problems)


class Groups(NamedTuple):
    """A breakdown."""

    by: Grouping
    names: list[str]
    shares: list[list[Share | None]]
    """A row a group, a column a run; None where the run has no problem of it."""


def breakdown(runs: Sequence[Run], by: Grouping) -> Groups | None:
    """By level or subject; None where the records have fewer than two."""
    tagged = [[(group_of(record, by), right(record)) for record in run.records] for run in runs]
    names = sorted({group for run in tagged for group, _ in run if group}, key=_natural)
    if len(names) < 2:
        return None
    return Groups(
        by, names, [[_share([hit for group, hit in run if group == name]) for run in tagged] for name in names]
    )


def group_of(record: Record, by: Grouping) -> str | None:
    return record.level if by == "level" else record.subject


def _share(hits: Sequence[bool]) -> Share | None:
    return Share(sum(hits), len(hits)) if hits else None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts level 2 before level 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name) if part]


def disputed(runs: Sequence[Run]) -> list[str]:
    """The problems that some of the runs that have them got right, and some wrong; every pair's first come first."""
    lists = []
    for one, other in combinations(runs, 2):
        common = [record for record in one.records if record.id in other.by_id]
        gained = [r.id for r in common if right(r) and not right(other.by_id[r.id])]
        lost = [r.id for r in common if not right(r) and right(other.by_id[r.id])]
        lists += [gained, lost]
    return list(dict.fromkeys(_alternating(lists)))


def _alternating(lists: Sequence[Sequence[str]]) -> Iterable[str]:
    return (name for name in chain.from_iterable(zip_longest(*lists)) if name is not None)
