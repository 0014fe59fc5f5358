"""Pictures of a calibration; needs matplotlib."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bench.calibration.difficulty_fit import Reliability
from bench.reporting.plots import COLOURS, themed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Place(NamedTuple):
    """An accuracy at a cost."""

    tokens: float
    accuracy: float


def reliability_diagram(groups: Sequence[Reliability]) -> bytes:
    """What was predicted against what was so, as PNG; the diagonal is perfect, areas are numbers of pilots.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    most = max(group.pilots for group in groups)
    with themed(False, (5.0, 5.0)) as (figure, theme):
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=theme["rule"], linewidth=1, label="as predicted")
        predicted, observed = ([100 * group[i] for group in groups] for i in (0, 1))
        sizes = [20 + 280 * group.pilots / most for group in groups]
        axes.plot(predicted, observed, color=COLOURS[0], linewidth=1.2)
        axes.scatter(predicted, observed, s=sizes, color=COLOURS[0], alpha=0.8, label="pilots, by number")
        axes.set(xlim=(-2, 102), ylim=(-2, 102), aspect="equal")
        axes.set_xlabel("predicted: one sample is right, %")
        axes.set_ylabel("samples that are right, %")
        axes.grid(alpha=0.6, linewidth=0.6)
        axes.legend(loc="upper left", frameon=False, fontsize=9, markerscale=0.5)
        return _png(figure)


def frontier(alone: Mapping[str, Place], policy: Sequence[Place]) -> bytes:
    """Accuracy against tokens, as PNG: a mark an arm, a line the policy.

    Raises:
        RuntimeError: matplotlib is not installed.
    """
    with themed(False, (7.2, 5.2)) as (figure, _):
        axes = figure.add_subplot()
        ordered = sorted(policy)
        tokens = [place.tokens for place in ordered]
        axes.plot(tokens, [100 * place.accuracy for place in ordered], "o-", color=COLOURS[1], label="policy")
        kinds = list(dict.fromkeys(_kind(label) for label in alone))
        for number, kind in enumerate(kinds):
            own = sorted(place for label, place in alone.items() if _kind(label) == kind)
            colour = [COLOURS[0], *COLOURS[2:]][number % (len(COLOURS) - 1)]
            shares = [100 * place.accuracy for place in own]
            axes.plot([place.tokens for place in own], shares, ".--", color=colour, linewidth=0.8, label=kind)
        spots = [place.tokens for place in (*alone.values(), *policy)]
        axes.set_xscale("log", base=2)
        ticks = [2**i for i in range(math.floor(math.log2(min(spots))), 1 + math.ceil(math.log2(max(spots))))]
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("tokens a question, of policy and reward model")
        axes.set_ylabel("accuracy on unseen problems, %")
        axes.grid(alpha=0.6, linewidth=0.6)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return _png(figure)


def _kind(label: str) -> str:
    """An arm's label without its number of samples."""
    return re.sub(r"@\d+", "", label)


def _png(figure: "Figure") -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
