"""Pictures of results; needs matplotlib."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.stats.intervals import Cell, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Told apart by the colour-blind too, on light and on dark; markers tell apart what shares one."""
_MARKERS = "osD^vPX*"
_LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "rule": "#c8ccd1"}
_DARK = {"paper": "#161b22", "ink": "#e6edf3", "rule": "#3d444d"}


class Mark(NamedTuple):
    """A share at a place, with its interval."""

    x: float
    share: float
    low: float
    high: float

    @property
    def reach(self) -> tuple[float, float]:
        """Percentage points down and up; rounding may put a bound of 0 or 100 % on the wrong side."""
        return max(0.0, 100 * (self.share - self.low)), max(0.0, 100 * (self.high - self.share))


@dataclass(frozen=True, slots=True)
class Curve:
    """What one contestant reached; one mark or several."""

    label: str
    marks: Sequence[Mark]
    place: int = 0
    """Among all contestants: it decides colour and marker."""


def draw(cells: Sequence[Cell], path: Path, difficulties: Sequence[str]) -> None:
    """Accuracy against generated tokens with Wilson's 95 % bands: a row a difficulty, a column a PRM quality.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError("drawing needs matplotlib; in a checkout: pip install '.[bench]'") from error
    qualities = sorted({cell.quality or 0.0 for cell in cells})
    labels = list(dict.fromkeys(cell.label for cell in sorted(cells, key=lambda cell: cell.budget)))
    colours = dict(zip(labels, colormaps["tab20"].colors, strict=False))  # type: ignore[attr-defined]
    figure = Figure(figsize=(4 * len(qualities), 3 * len(difficulties) + 1.2), layout="constrained")
    grid = figure.subplots(len(difficulties), len(qualities), sharex=True, sharey="row", squeeze=False)
    for row, difficulty in zip(grid, difficulties, strict=True):
        for axes, quality in zip(row, qualities, strict=True):
            for label in labels:
                here = (label, difficulty, quality)
                curve = sorted(
                    (cell for cell in cells if (cell.label, cell.difficulty, cell.quality) == here),
                    key=lambda cell: cell.completion_tokens,
                )
                tokens = [cell.completion_tokens for cell in curve]
                bands = [wilson(sum(cell.hits), len(cell.hits)) for cell in curve]
                axes.fill_between(tokens, *zip(*bands, strict=True), color=colours[label], alpha=0.1, linewidth=0)
                axes.plot(
                    tokens,
                    [cell.accuracy for cell in curve],
                    marker="*" if len(curve) == 1 else ".",
                    color=colours[label],
                    label=label,
                    linewidth=1.2,
                )
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
            axes.set_title(f"{difficulty}, PRM quality {quality:g}", fontsize=10)
        row[0].set_ylabel("accuracy")
    for axes in grid[-1]:
        axes.set_xlabel("generated tokens a question")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(8, len(names)), fontsize=9)
    figure.savefig(path, dpi=110)


def frontier(marks: Sequence[Mark]) -> list[int]:
    """The marks that none beats: every other one is further right or lower. From left to right."""
    order = sorted(range(len(marks)), key=lambda i: (marks[i].x, -marks[i].share))
    leading: list[int] = []
    for i in order:
        if not leading or marks[i].share > marks[leading[-1]].share:
            leading.append(i)
    return leading


def trade_off(curves: Sequence[Curve], x_label: str, *, dark: bool = False) -> bytes:
    """Accuracy against a cost as PNG: a mark a contestant with its interval, the frontier drawn through the best.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    with themed(dark) as (figure, theme):
        axes = figure.add_subplot()
        marks = [curve.marks[0] for curve in curves]
        leading = [marks[i] for i in frontier(marks)]
        axes.plot(
            [mark.x for mark in leading],
            [100 * mark.share for mark in leading],
            color=theme["ink"],
            linestyle=(0, (4, 3)),
            linewidth=1,
            alpha=0.7,
            label="frontier",
        )
        axes.scatter(
            [mark.x for mark in leading],
            [100 * mark.share for mark in leading],
            s=190,
            facecolors="none",
            edgecolors=theme["ink"],
            linewidths=1,
            zorder=4,
        )
        for curve in curves:
            _draw(axes, curve)
        _scale(axes, [mark.x for mark in marks])
        axes.set_xlabel(x_label)
        return _finished(figure, [axes])


def scaling(panels: Mapping[str, Sequence[Curve]], *, dark: bool = False) -> bytes:
    """Accuracy against the number of samples as PNG: a panel a run, a curve a selector.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with themed(dark, (9.0, 3.2 * rows + 1.0)) as (figure, _):
        grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        for axes, (title, curves) in zip(grid, panels.items(), strict=False):
            for curve in curves:
                _draw(axes, curve, joined=True)
            _scale(axes, [mark.x for curve in curves for mark in curve.marks], counts=True)
            axes.set_title(_short(title, 56), fontsize=10)
            axes.set_xlabel("samples, k")
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        return _finished(figure, grid[: len(panels)])


def breakdown(groups: Sequence[str], curves: Sequence[Curve], *, dark: bool = False) -> bytes:
    """Accuracy in each group as PNG; a mark's x is the number of its group.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    with themed(dark, (9.0, (0.3 + 0.14 * len(curves)) * len(groups) + 1.4)) as (figure, theme):
        axes = figure.add_subplot()
        for place, curve in enumerate(curves):
            offset = 0.7 * ((place + 0.5) / len(curves) - 0.5)
            for mark in curve.marks:
                axes.errorbar(
                    100 * mark.share,
                    mark.x + offset,
                    xerr=[[points] for points in mark.reach],
                    label=_name(curve.label) if mark is curve.marks[0] else None,
                    **_style(curve.place),
                )
        for edge in range(1, len(groups)):
            axes.axhline(edge - 0.5, color=theme["rule"], linewidth=0.6)
        axes.set_yticks(range(len(groups)), [_short(group, 40) for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(-1, 101)
        axes.grid(axis="x", alpha=0.6, linewidth=0.6)
        axes.set_xlabel("accuracy, %")
        return _png(figure, axes)


@contextmanager
def themed(dark: bool, size: tuple[float, float] = (6.8, 4.2)) -> "Iterator[tuple[Figure, dict[str, str]]]":
    """An empty figure in the colours of the page, which are given by name.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeError("drawing needs matplotlib; in a checkout: pip install '.[bench]'") from error
    theme = _DARK if dark else _LIGHT
    # A dollar sign in a run's name is no formula.
    settings: dict[Any, Any] = {"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False}
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme["ink"])
    settings |= dict.fromkeys(("axes.edgecolor", "grid.color"), theme["rule"])
    settings |= dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), theme["paper"])
    with rc_context(settings):
        yield Figure(figsize=size, layout="constrained"), theme


def _draw(axes: "Axes", curve: Curve, *, joined: bool = False) -> None:
    style = {**_style(curve.place), "linestyle": "-" if joined else "none"}
    axes.errorbar(
        [mark.x for mark in curve.marks],
        [100 * mark.share for mark in curve.marks],
        yerr=list(zip(*(mark.reach for mark in curve.marks), strict=True)),
        label=_name(curve.label),
        **style,
    )


def _style(place: int) -> dict[str, Any]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": _MARKERS[(place + place // len(COLOURS)) % len(_MARKERS)],
        "markersize": 6,
        "linestyle": "none",
        "linewidth": 1.5,
        "elinewidth": 1,
        "capsize": 2.5,
    }


def _name(label: str) -> str:
    # matplotlib leaves out of a legend what begins with an underscore.
    return _short(label, 33).lstrip("_") or "?"


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _scale(axes: "Axes", xs: Sequence[float], *, counts: bool = False) -> None:
    """Logarithmic where the largest is many times the least."""
    least, most = min(xs), max(xs)
    if counts or (least > 0 and most / least > 8):
        axes.set_xscale("log", base=2)
        ticks = (
            sorted(set(xs))
            if counts
            else [2**e for e in range(math.floor(math.log2(least)), 1 + math.ceil(math.log2(most)))]
        )
        axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        axes.minorticks_off()
    else:
        axes.set_xlim(0, most * 1.08 or 1)
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.6, linewidth=0.6)


def _finished(figure: "Figure", panels: "Sequence[Axes]") -> bytes:
    low = min(axes.get_ylim()[0] for axes in panels)
    high = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(max(0, low), min(100.8, high))
    return _png(figure, panels[0])


def _png(figure: "Figure", axes: "Axes") -> bytes:
    handles, names = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    # A letter of the legend is about a twelfth of an inch wide, a line a fifth of one high.
    columns = max(1, min(4, len(names), int(width * 12 / (max(map(len, names)) + 7))))
    figure.set_size_inches(width, height + 0.2 * math.ceil(len(names) / columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
