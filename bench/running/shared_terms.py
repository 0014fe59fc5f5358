"""How the problems of a run share one budget: what was asked for, checked."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from bench.stored.records import RecordError
from strategies.allocation import policy_table as policies
from strategies.allocation.arms import VOTES
from strategies.allocation.policy_table import Policy, PolicyError
from strategies.core.contracts import Selector
from strategies.core.plain_words import sentence

POLICY = "policy.json"
"""Beside the records: that by which a budget was shared."""
PILOT = 4
"""Samples that every problem gets first, where no policy says how many."""


class Terms(NamedTuple):
    """How problems share a budget."""

    tokens: int
    """Of all problems together: generated ones, and those of the reward model."""
    samples: int
    """That a problem gets at most."""
    sample_tokens: int
    """That one sample can have."""
    selector: Selector
    policy: Policy | None = None
    """Whose table tells what more samples gain; None: the votes do."""

    @property
    def pilot(self) -> int:
        return min(self.samples, self.policy.pilot.n if self.policy else PILOT)


def terms_of(
    tokens: int,
    policy: Policy | None,
    strategy: str | None,
    options: Mapping[str, Any],
    sampling: Mapping[str, Any],
) -> Terms:
    """Raises ValueError, naming the option, where the strategy's samples cannot be added to one another."""
    if strategy not in VOTES:
        raise ValueError(
            f"--total-tokens: needs a strategy of independent samples, {' or '.join(VOTES)}; got {strategy or 'none'}"
        )
    if options.get("stopping", "none") != "none":
        raise ValueError("--option stopping: with --total-tokens the budget decides when to stop; leave it out")
    selector = options.get("selector") or ("majority" if strategy == "self_consistency" else "weighted")
    if selector not in ("majority", "weighted", "best"):
        raise ValueError(f"--option selector: majority, weighted or best with --total-tokens, got {selector!r}")
    if "budget" in options:
        raise ValueError("--option budget: is of one request; with --total-tokens all share one")
    n, most = options.get("n"), sampling.get("max_tokens")
    if not isinstance(n, int) or n < 1:
        raise ValueError("--n: with --total-tokens, say how many samples a problem gets at most")
    if not isinstance(most, int) or most < 1:
        raise ValueError("--max-tokens: with --total-tokens, say how many tokens a sample has at most")
    return Terms(tokens, n, most, cast(Selector, selector), policy)


def read_policy(path: Path) -> tuple[Policy, str]:
    """A policy, and its file's SHA-256.

    Raises:
        RecordError: it cannot be read, or is none.
    """
    try:
        return policies.read(path), hashlib.sha256(path.read_bytes()).hexdigest()
    except (PolicyError, OSError) as error:
        raise RecordError(f"--policy: {sentence(error)}") from None
