"""A policy of which every process label is known: a solution is wrong from its first slip on."""

from collections.abc import Sequence

from prm import split_steps
from strategies.core.contracts import text_of
from tts_server.engines.fake import FakeRequest

STEPS, ROLLOUTS, GOLD = 7, 4, "7"


class World:
    """A policy that slips at a step it draws, if at all, and never recovers.

    Of four rollouts from behind k + 1 right steps, 1 + k % 4 arrive.
    """

    def __init__(self) -> None:
        self.sampled: list[int | None] = []
        """The seeds of the solutions."""
        self.rollouts = 0

    def __call__(self, request: FakeRequest) -> str:
        last = request.messages[-1]
        if last["role"] == "user":
            self.sampled.append(request.sampling.seed)
            return solution(request.rng.randrange(STEPS + 1))
        self.rollouts += 1
        # It goes on right behind the separator, in the same turn.
        assert request.text.endswith(f"{text_of(last).strip()}\n\n")
        done = split_steps(text_of(last))
        arrives = not any("slip" in step for step in done) and request.index < arriving(len(done) - 1)
        return "\n\n".join([*(line(k) for k in range(len(done), STEPS - 1)), answer(arrives)])


def arriving(step: int) -> int:
    """Rollouts from behind a right step that reach the gold answer."""
    return 1 + step % ROLLOUTS


def line(step: int, slips: bool = False) -> str:
    return f"Step {step}: {'a slip' if slips else 'fine'}."


def answer(right: bool) -> str:
    return f"The answer is \\boxed{{{GOLD if right else 8}}}."


def solution(slip: int) -> str:
    """Seven steps, of which number `slip` is wrong; the last is the answer."""
    return "\n\n".join([*(line(k, k == slip) for k in range(STEPS - 1)), answer(slip == STEPS)])


def first_error(steps: Sequence[str]) -> int | None:
    """Where a solution goes wrong, as only the world knows."""
    return next((k for k, step in enumerate(steps) if "slip" in step or "8" in step), None)
