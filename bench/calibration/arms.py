"""Ways to spend a request's tokens, and what each of them came to on every problem. Knows no records and no policy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prm import Aggregation
from strategies.allocation.policy_table import STOP
from strategies.core.contracts import Selector

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to answer."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    samples: int | None = None
    """Of a vote, how many take part; None of a search."""
    selector: Selector = "majority"
    aggregation: Aggregation | None = None
    """None: the scores as they are stored."""

    @property
    def label(self) -> str:
        told = [str(value) for name, value in self.options.items() if name != "n"]
        n = self.options.get("n")
        return " ".join([self.strategy if n is None else f"{self.strategy}@{n}", *told])

    @property
    def is_vote(self) -> bool:
        return self.samples is not None

    @property
    def scored(self) -> bool:
        """Whether it is a vote that the reward model weighs."""
        return self.is_vote and self.selector != "majority"

    @property
    def alone_only(self) -> bool:
        """Whether no policy holds it: behind a pilot, every vote stops by itself."""
        return self.options.get("stopping") == "beta"


def vote_arms(
    pilot: int, sizes: Sequence[int], selectors: Sequence[Selector], aggregation: Aggregation | None = None
) -> list[Arm]:
    """Votes over so many samples; `stop` is the pilot's own majority. Those of a majority can stop by themselves."""
    named: dict[str, Any] = {"aggregation": aggregation} if aggregation else {}
    arms = []
    for selector in selectors:
        for n in sizes:
            if selector != "majority":
                arms.append(Arm("best_of_n", {"n": n, "selector": selector, **named}, n, selector, aggregation))
            elif n == pilot:
                arms.append(Arm(STOP, {}, n))
            else:
                arms.append(Arm("self_consistency", {"n": n}, n))
                arms.append(Arm("self_consistency", {"n": n, "stopping": "beta"}, n))
    return arms


class Outcomes(NamedTuple):
    """Arrays of one shape: arms x problems x draws."""

    right: Floats
    """1 or 0."""
    tokens: Floats
    """Generated, all of the request's."""
    prm_tokens: Floats
    wall_s: Floats

    @property
    def total(self) -> Floats:
        """Tokens of the policy and of the reward model alike."""
        return self.tokens + self.prm_tokens

    def of(self, problems: Sequence[int] | Places) -> "Outcomes":
        """Only those of some problems."""
        return Outcomes(*(part[:, problems] for part in self))


@dataclass(frozen=True)
class Trials:
    """Every problem answered `draws` times by every arm."""

    ids: tuple[str, ...]
    arms: tuple[Arm, ...]
    """The first is `stop`."""
    names: tuple[str, ...]
    """Of the features."""
    features: Floats
    """Of the pilots: problems x draws x features."""
    ability: Floats
    """Share of right samples among those not in the pilot, problems x draws: what difficulty is learnt from."""
    oracle: Floats
    """Share of right ones among all of a problem's samples, problems x draws."""
    agreed: NDArray[np.bool_]
    """Whether a pilot is the answer, problems x draws: nothing is chosen then."""
    alone: Outcomes
    """Of each arm as a strategy of its own, without a pilot."""
    after: Outcomes
    """Of each arm as `compute_optimal` takes it: after the pilot, and not at all where the pilot agrees."""

    @property
    def shape(self) -> tuple[int, int]:
        """Problems, and draws of each."""
        problems, draws = self.ability.shape
        return problems, draws

    def of(self, problems: Sequence[int] | Places) -> "Trials":
        """Only those of some problems."""
        chosen = list(problems)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            features=self.features[chosen],
            ability=self.ability[chosen],
            oracle=self.oracle[chosen],
            agreed=self.agreed[chosen],
            alone=self.alone.of(chosen),
            after=self.after.of(chosen),
        )
