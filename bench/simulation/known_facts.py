"""What is known of search in the literature, and whether it came out of a simulation. Nothing is assumed to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.stats.intervals import Cell, Difference, difference

RISE = 16
"""From which part of the largest budget to the largest one over-optimisation shows."""
LOW = 8
"""The low budget at which beam search should not be behind yet."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A claim and what the figures say of it."""

    claim: str
    holds: bool
    figures: str


@dataclass(frozen=True, slots=True)
class Results:
    """The cells of a simulation, to be asked."""

    cells: Sequence[Cell]

    @property
    def noisy(self) -> list[float]:
        """The qualities of reward models that are neither useless nor perfect."""
        return sorted({cell.quality for cell in self.cells if cell.quality is not None and 0 < cell.quality < 1})

    @property
    def budgets(self) -> list[int]:
        return sorted({cell.budget for cell in self.cells})

    @property
    def difficulties(self) -> list[str]:
        return list(dict.fromkeys(cell.difficulty for cell in self.cells))

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(cell.label for cell in self.cells))

    def of(self, label: str, budget: int, qualities: Iterable[float], difficulties: Iterable[str]) -> list[Cell]:
        """The contestant's cells, by quality and difficulty."""
        cells = {
            (cell.quality, cell.difficulty): cell
            for cell in self.cells
            if cell.label == label and cell.budget == budget
        }
        return [cells[at] for q in qualities for d in difficulties if (at := (q, d)) in cells]

    def tokens(self, label: str, budget: int, difficulties: Iterable[str]) -> float:
        """Generated tokens a question, where the reward model is useless."""
        return fmean(cell.completion_tokens for cell in self.of(label, budget, [0.0], difficulties))

    def gap(
        self,
        one: str,
        other: str,
        budget: int,
        qualities: Iterable[float],
        difficulties: Iterable[str] | None = None,
        *,
        other_budget: int | None = None,
        level: float = 0.99,
    ) -> Difference:
        """How much more accurate `one` is than `other` on the same questions, of all difficulties unless told."""
        of = tuple(qualities), tuple(difficulties or self.difficulties)
        return difference(self.of(one, budget, *of), self.of(other, other_budget or budget, *of), level)


def known_facts(cells: Sequence[Cell]) -> list[Fact]:
    """Each known fact that the cells can speak of, with percentage points and their 99 % intervals."""
    results = Results(cells)
    facts = []
    if results.noisy and {"weighted", "best_of_n"} <= {*results.labels}:
        facts.append(weighted_beats_best(results))
    if results.noisy and {"weighted", "beam_search"} <= {*results.labels}:
        facts.append(beam_over_optimises(results))
    if results.noisy and {"dvts", "beam_search"} <= {*results.labels}:
        facts.append(dvts_overtakes_beam(results))
    if 0.0 in {cell.quality for cell in cells} and "majority" in results.labels and len(results.labels) > 1:
        facts.append(nothing_beats_majority(results))
    return facts


def weighted_beats_best(results: Results) -> Fact:
    top, noisy = results.budgets[-1], results.noisy
    gap = results.gap("weighted", "best_of_n", top, noisy)
    each = (f"{d} {results.gap('weighted', 'best_of_n', top, noisy, [d])}" for d in results.difficulties)
    figures = f"Weighted minus best at N = {top}: {gap} points over all difficulties; {', '.join(each)}"
    return Fact("A weighted vote beats best-of-N under a noisy reward model", gap.low > 0, figures)


def beam_over_optimises(results: Results) -> Fact:
    top, noisy, easy = results.budgets[-1], results.noisy, results.difficulties[:1]
    less = max(1, top // RISE)
    rise = results.gap("beam_search", "beam_search", top, noisy, easy, other_budget=less)
    behind = {d: results.gap("beam_search", "weighted", top, noisy, [d]) for d in results.difficulties}
    figures = (
        f"Beam search on {easy[0]} questions from N = {less} to {top}: {rise} points. Beam search minus the weighted "
        f"vote at N = {top}: {', '.join(f'{d} {gap}' for d, gap in behind.items())}"
    )
    holds = rise.high < 0 and behind[easy[0]].high < 0
    return Fact("Beam search over-optimises on easy questions at a high budget", holds, figures)


def dvts_overtakes_beam(results: Results) -> Fact:
    top, noisy = results.budgets[-1], results.noisy
    gaps = {n: results.gap("dvts", "beam_search", n, noisy) for n in results.budgets if n >= min(LOW, top)}
    holds = min(gaps) < top and gaps[min(gaps)].low <= 0 < gaps[top].low
    figures = f"DVTS minus beam search: {', '.join(f'N = {n}: {gap}' for n, gap in gaps.items())}"
    return Fact("DVTS overtakes beam search at a high N", holds, figures)


def nothing_beats_majority(results: Results) -> Fact:
    """At equal tokens, over the mixture of difficulties: where the right answer is not the most frequent one, the
    majority is wrong.
    """
    rivals = [
        (label, n)
        for label in results.labels
        for n in results.budgets
        if label != "majority" and results.of(label, n, [0.0], results.difficulties)
    ]
    # Many comparisons: one of them may be above by chance.
    level = 1 - 0.01 / max(1, len(rivals))
    gaps = {rival: _beside_majority(results, *rival, results.difficulties, level) for rival in rivals}
    (label, n), best = max(gaps.items(), key=lambda gap: gap[1].low)
    each = (f"{d}: {', '.join(_ahead(results, rivals, d, level)) or 'none'}" for d in results.difficulties)
    figures = (
        f"The closest of {len(rivals)} rivals, {label} at N = {n}, minus the majority of as many tokens: {best} "
        f"points over all difficulties. Ahead on one difficulty alone: {'; '.join(each)}"
    )
    return Fact("Nothing beats the majority when the reward model is useless", best.low <= 0, figures)


def _ahead(results: Results, rivals: Sequence[tuple[str, int]], difficulty: str, level: float) -> list[str]:
    gaps = ((label, n, _beside_majority(results, label, n, [difficulty], level)) for label, n in rivals)
    return [f"{label} at {n} {gap}" for label, n, gap in gaps if gap.low > 0]


def _beside_majority(results: Results, label: str, n: int, difficulties: Sequence[str], level: float) -> Difference:
    """The rival minus the smallest majority that has as many tokens, within a twentieth; the largest if none has."""
    spent = results.tokens(label, n, difficulties)
    enough = (k for k in results.budgets if results.tokens("majority", k, difficulties) >= 0.95 * spent)
    return results.gap(
        label, "majority", n, [0.0], difficulties, other_budget=next(enough, results.budgets[-1]), level=level
    )
