"""Wider or deeper: TreeQuest's tree (AB-MCTS-A, 2503.04412), with randomness of its own."""

import asyncio
import importlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Protocol

from strategies.core.contracts import Candidate, Refused

if TYPE_CHECKING:
    from numpy.random import RandomState

Posterior = Literal["gaussian", "beta"]

_numpy = Lock()
"""Held while numpy's global generator, the only one that TreeQuest draws from, is one request's own."""


async def treequest() -> Any:
    """The library, imported beside the event loop: it brings SciPy.

    Raises:
        Refused: it is not installed.
    """
    try:
        return await asyncio.to_thread(importlib.import_module, "treequest")
    except ImportError as error:
        raise Refused(
            "ab_mcts needs TreeQuest; in a checkout of the server: pip install '.[search]'", "tts.strategy"
        ) from error


class Trial(Protocol):
    """TreeQuest's order for one solution."""

    @property
    def trial_id(self) -> str: ...
    @property
    def node_to_expand(self) -> int: ...
    @property
    def parent_state(self) -> Candidate | None: ...


class Tree:
    """TreeQuest's tree, with randomness of its own."""

    ACTION = "answer"

    def __init__(self, library: Any, posterior: Posterior, seed: int | None) -> None:
        from numpy.random import RandomState  # noqa: PLC0415

        self._rng = RandomState(None if seed is None else random.Random(f"{seed}|tree").getrandbits(32))
        self._algorithm = library.ABMCTSA(dist_type=posterior)
        self._state = self._algorithm.init_tree()

    def ask(self, n: int) -> list[Trial]:
        with drawing_from(self._rng):
            self._state, trials = self._algorithm.ask_batch(self._state, n, [self.ACTION])
        return list(trials)

    def tell(self, trial: Trial, candidate: Candidate, score: float) -> None:
        self._state = self._algorithm.tell(self._state, trial.trial_id, (candidate, score))


@contextmanager
def drawing_from(own: "RandomState") -> Iterator[None]:
    """Lets numpy's global generator go on from `own` for a moment, and gives it back as it was."""
    import numpy as np  # noqa: PLC0415

    with _numpy:
        others = np.random.get_state()
        np.random.set_state(own.get_state())
        try:
            yield
        finally:
            own.set_state(np.random.get_state())
            np.random.set_state(others)
