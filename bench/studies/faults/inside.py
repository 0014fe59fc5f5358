"""The server's own command line, in a process whose wall clock steps and whose fake reward model fails on request.

Only what no client and no upstream can do is done here; all else is the server as its users start it.

    python -m bench.studies.faults.inside serve …
"""

import asyncio
import random
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count

import prm.fake
from bench.studies.faults.kinds import mark_in
from prm import OnTokens, PRMError, StepScores

STEP_EVERY_S = 2.0
STEPS_S = (-3600.0, -5.0, 0.0, 30.0, 3600.0)
"""How far the wall clock may be off."""


class FaultyPRM(prm.fake.FakePRM):
    """Fails as the mark in its question says; otherwise it is the fake one."""

    _calls = count()

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        mark = mark_in(question)
        scores = await super().score(question, solutions, on_tokens=on_tokens)
        match mark.prm if mark.befalls(0, next(self._calls)) else "none":
            case "raises":
                raise PRMError("it was told to")
            case "breaks":
                raise RuntimeError("a bug of the reward model's")
            case "hangs":
                await asyncio.Event().wait()
            case "short":
                return [StepScores(score.scores[:-1]) for score in scores]
            case "few":
                return scores[:-1]
        return scores


def stepping(clock: Callable[[], float], seed: int = 0) -> Callable[[], float]:
    """A wall clock that is set to another time every few seconds."""
    began = time.monotonic()

    def now() -> float:
        step = int((time.monotonic() - began) / STEP_EVERY_S)
        return clock() + random.Random(f"{seed}|{step}").choice(STEPS_S)

    return now


def main() -> None:
    """Runs the command line."""
    time.time = stepping(time.time)
    prm.fake.FakePRM = FaultyPRM  # type: ignore[misc]
    sys.argv[0] = "tts-server"
    runpy.run_module("tts_server.cli.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
