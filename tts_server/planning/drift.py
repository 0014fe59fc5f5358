"""Whether the policy still fits: what it predicts of its answers, held against what clients say of them.

Where no client says anything, two things tell of a change: how the predictions are spread (PSI), and by how much the
votes agree beyond what was predicted, both against the first ones since the server's start.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from strategies.core.contracts import Final

WINDOW = 500
"""Decisions, and answers of which something was said, that are looked at."""
REFERENCE = 200
"""First decisions since the start, against which later ones are held."""
LEAST = 50
"""Fewer than these tell nothing."""
BINS = 5
"""Of equal width, for the calibration error; PSI has twice as many."""
TOLERATED_ECE = 0.05
"""Beyond one and a half times what chance alone gives a policy that fits."""
TOLERATED_PSI = 0.25
"""Above it, a population counts as another one (the usual rule of credit scoring)."""
TOLERATED_GAP = 0.1
"""Change of the mean difference between agreement and prediction."""
SURE = 4.0
"""Standard errors that such a change has to have."""

Why = Literal["calibration", "population", "agreement"]


class Pair(NamedTuple):
    """A prediction and what came of it, each in [0, 1]."""

    predicted: float
    outcome: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known now. A figure is None where too little is."""

    decided: int
    """Decisions since the start."""
    explored: int
    """Those of them that were not the policy's choice, but made to learn."""
    observed: int
    """Answers of which a client said something, at most `WINDOW`."""
    predicted: float | None
    """Mean of the accuracy that was predicted of those answers."""
    accuracy: float | None
    """Mean of what was said of them."""
    ece: float | None
    """Expected calibration error of the one against the other."""
    psi: float | None
    """Population stability index of the last predictions against the first ones."""
    agreement: float | None
    """Mean share of the returned answers in their votes, over the last decisions."""
    alarms: tuple[Why, ...]

    @property
    def alarm(self) -> bool:
        """Whether the policy should be fitted anew."""
        return bool(self.alarms)


@dataclass(slots=True)
class Drift:
    """What one server has seen since its start."""

    decided_count: int = 0
    explored_count: int = 0
    _first: list[Pair] = field(default_factory=list)
    """The first decisions: predictions, and the votes' agreement."""
    _last: deque[Pair] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _observed: OrderedDict[str, Pair] = field(default_factory=OrderedDict)
    """By trace: what was said last counts."""

    def ended(self, final: Final | None) -> None:
        """A search has ended; nothing is learned of one that decided nothing."""
        if final is not None and final.decision is not None:
            self.decided(final.decision)

    def decided(self, decision: Mapping[str, Any]) -> None:
        """A way to search was chosen, and has come to an answer; see `tts.decision`."""
        self.decided_count += 1
        self.explored_count += bool(decision.get("explored"))
        predicted, agreement = decision.get("predicted_accuracy"), decision.get("agreement")
        if predicted is None:
            return
        pair = Pair(predicted, math.nan if agreement is None else agreement)
        if len(self._first) < REFERENCE:
            self._first.append(pair)
        else:
            self._last.append(pair)

    def observed(self, trace: str, decision: Mapping[str, Any] | None, outcome: float) -> None:
        """A client said how right an answer was, from 0 to 1."""
        predicted = (decision or {}).get("predicted_accuracy")
        if predicted is None:
            return
        self._observed.pop(trace, None)
        self._observed[trace] = Pair(predicted, outcome)
        if len(self._observed) > WINDOW:
            self._observed.popitem(last=False)

    def snapshot(self) -> Snapshot:
        """All figures."""
        pairs = list(self._observed.values())
        enough = len(pairs) >= LEAST
        ece = calibration_error(pairs) if enough else None
        compared = len(self._last) >= LEAST
        psi = stability(self._first, self._last) if compared else None
        agreements = [pair.outcome for pair in (*self._first, *self._last)[-WINDOW:] if not math.isnan(pair.outcome)]
        found: dict[Why, bool] = {
            "calibration": ece is not None and ece > 1.5 * chance_error(pairs) + TOLERATED_ECE,
            "population": psi is not None and psi > TOLERATED_PSI,
            "agreement": compared and not enough and _moved(self._first, self._last),
        }
        return Snapshot(
            self.decided_count,
            self.explored_count,
            len(pairs),
            _mean([pair.predicted for pair in pairs]),
            _mean([pair.outcome for pair in pairs]),
            ece,
            psi,
            _mean(agreements),
            tuple(why for why, true in found.items() if true),
        )


def calibration_error(pairs: Sequence[Pair]) -> float:
    """Sum over bins of prediction of |mean outcome - mean prediction|, each weighted by its share."""
    return math.fsum(
        abs(math.fsum(pair.outcome - pair.predicted for pair in members)) for members in _binned(pairs)
    ) / len(pairs)


def chance_error(pairs: Sequence[Pair]) -> float:
    """The calibration error that is expected of predictions that are right, because outcomes are drawn."""
    return math.fsum(
        math.sqrt(2 / math.pi * math.fsum(pair.predicted * (1 - pair.predicted) for pair in members))
        for members in _binned(pairs)
    ) / len(pairs)


def stability(first: Sequence[Pair], last: Sequence[Pair]) -> float:
    """The population stability index of two sets of predictions: sum of (q - p) ln(q / p) over bins."""
    shares = [_shares([pair.predicted for pair in pairs], 2 * BINS) for pairs in (first, list(last))]
    return math.fsum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))


def _moved(first: Sequence[Pair], last: Sequence[Pair]) -> bool:
    """Whether votes agree by another measure beyond the predictions than they did at first."""
    gaps = [[p.outcome - p.predicted for p in pairs if not math.isnan(p.outcome)] for pairs in (first, last)]
    if min(map(len, gaps)) < LEAST:
        return False
    means = [math.fsum(side) / len(side) for side in gaps]
    errors = [math.fsum((g - m) ** 2 for g in side) / len(side) ** 2 for side, m in zip(gaps, means, strict=True)]
    moved = abs(means[1] - means[0])
    return moved > TOLERATED_GAP and moved > SURE * math.sqrt(math.fsum(errors))


def _binned(pairs: Sequence[Pair]) -> list[list[Pair]]:
    members: list[list[Pair]] = [[] for _ in range(BINS)]
    for pair in pairs:
        members[min(BINS - 1, int(pair.predicted * BINS))].append(pair)
    return [some for some in members if some]


def _shares(values: Sequence[float], bins: int) -> list[float]:
    """Of each bin, with half a value more in each, so that none is empty."""
    counts = [0.5] * bins
    for value in values:
        counts[min(bins - 1, int(value * bins))] += 1
    return [count / math.fsum(counts) for count in counts]


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
