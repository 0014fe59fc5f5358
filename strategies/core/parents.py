"""What names the samples that a prompt, or a solution to score, comes from."""

from collections.abc import Iterable

from strategies.core.contracts import Sample


def numbers_of(samples: Iterable[Sample]) -> tuple[int, ...]:
    """The numbers of those samples that have one: what a prompt gives as its parents."""
    return tuple([number for sample in samples if (number := sample.number) is not None])


class Steps(tuple[str, ...]):
    """A solution step by step, with the number of the sample that ends it."""

    sample: int | None

    def __new__(cls, steps: Iterable[str], sample: int | None) -> "Steps":
        made = super().__new__(cls, steps)
        made.sample = sample
        return made
