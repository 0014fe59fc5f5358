"""One call of the engine and the samples that it draws, with one policy for what goes wrong."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import count

from strategies.core.account import BudgetSpent
from strategies.core.contracts import Chunk, Engine, Prompt, Sample, Sampling, Task


def succeeded(sample: Sample) -> bool:
    return sample.finish_reason not in (None, "error")


def raise_if_all_failed(samples: Sequence[Sample]) -> None:
    """Raises the first cause if there are samples and none of them succeeded."""
    causes = [sample.chunks[-1].error for sample in samples if not succeeded(sample)]
    if causes and len(causes) == len(samples):
        raise causes[0] or RuntimeError("the engine gave no cause")


@dataclass(slots=True)
class Drawing:
    """The samples of one call. What goes wrong is kept here and not raised, so that each caller can decide.

    A failure of the call ends the samples that still grow. Where none grows and fewer than n have begun, a sample of
    its own stands for the others. A failure after the end of all samples is none.

    Args:
        first: the index of the first sample.
        opening: see `Sample.opening`.
    """

    engine: Engine
    prompt: Prompt
    sampling: Sampling
    n: int = 1
    first: int = 0
    opening: str = ""
    failure: Exception | None = None
    """Why the call failed, where it did before its end."""
    unpaid: BudgetSpent | None = None
    """The limit that did not allow the call to begin."""
    _samples: dict[int, Sample] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task, engine: Engine, n: int = 1, first: int = 0) -> "Drawing":
        """Answers to a task."""
        return cls(engine, task.prompt, task.sampling, n, first, task.opening)

    @property
    def samples(self) -> list[Sample]:
        """All that have begun, by their index."""
        return [self._samples[index] for index in sorted(self._samples)]

    def raise_if_lost(self) -> None:
        """Raises why the call failed, if no sample succeeded before it did."""
        if self.failure and not any(map(succeeded, self._samples.values())):
            raise self.failure

    async def run(self, until: Callable[[Chunk], bool] | None = None) -> list[Sample]:
        """Draws to the end, or until a chunk is the last one that is wanted; returns the samples."""
        with self._keeping_failures():
            async with aclosing(self.engine.generate(self.prompt, self.sampling, self.n)) as chunks:
                async for chunk in chunks:
                    sample = self._samples.get(self.first + chunk.index) or self._begin(self.first + chunk.index)
                    sample.chunks.append(replace(chunk, index=self.first + chunk.index) if self.first else chunk)
                    if until and until(chunk):
                        break
        return self.samples

    async def chunks(self) -> AsyncGenerator[tuple[Chunk, Sample], None]:
        """Draws, and yields each chunk with its sample, which has it by then; the first sample has the index 0."""
        with self._keeping_failures():
            async with aclosing(self.engine.generate(self.prompt, self.sampling, self.n)) as chunks:
                async for chunk in chunks:
                    sample = self._samples.get(chunk.index) or self._begin(chunk.index)
                    sample.chunks.append(chunk)
                    yield chunk, sample

    def _begin(self, index: int) -> Sample:
        return self._samples.setdefault(index, Sample(opening=self.opening))

    @contextmanager
    def _keeping_failures(self) -> Iterator[None]:
        try:
            yield
        except BudgetSpent as unpaid:
            self.unpaid = unpaid
        except Exception as error:
            ended = [index for index, sample in self._samples.items() if sample.finish_reason]
            growing = sorted(self._samples.keys() - set(ended))
            if len(ended) == self.n:
                return
            self.failure = error
            for index in growing or [next(i for i in count(self.first) if i not in ended)]:
                self._begin(index).chunks.append(Chunk(index, finish_reason="error", error=error))
