"""Samples that are drawn already, in front of an engine: a search begins with them, and pays for what is new.

A call that continues the task's prompt is served from them first: whole, where the call draws whole answers; cut at its
stop strings, where it draws steps and the engine tells token ids. A trajectory that equals the beginning of a sample
goes on as that sample did. Each is served once after each beginning, so that a vote counts no sample
twice. A sample's next step is as good as a fresh one: nothing but what came before it had a say in what it is.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from prm import Aggregation, Choice, OnTokens, ProcessRewardModel, StepScores
from strategies.core.account import BudgetSpent
from strategies.core.contracts import Chunk, Engine, Prompt, Sample, Sampling, TokenIds
from strategies.core.engine_wrapper import EngineWrapper
from strategies.sampling.drawing import succeeded
from strategies.sampling.logprob_confidence import only_asked
from strategies.sampling.streams import sub_seed
from strategies.search.stop_strings import Stop, first_stop, reach


class ReplayEngine(EngineWrapper):
    """An engine that serves what was drawn before it draws more.

    Args:
        engine: draws what is new, and is paid for it.
        prompt: what the samples answer.
        sampling: how they were drawn.
    """

    def __init__(self, engine: Engine, prompt: Prompt, sampling: Sampling) -> None:
        super().__init__(engine)
        self._prompt = prompt
        self._sampling = sampling
        self._root: TokenIds | None = prompt.token_ids or None
        self._samples: list[Sample] = []
        self._served: dict[TokenIds, set[int]] = defaultdict(set)
        self._calls = 0

    def keep(self, samples: Sequence[Sample]) -> None:
        """More samples to serve; failed ones and what the budget cut are not."""
        self._samples += [s for s in samples if succeeded(s) and s.finish_reason != "budget"]

    @property
    def kept(self) -> int:
        """How many samples it has to serve."""
        return len(self._samples)

    async def encode(self, prompt: Prompt) -> TokenIds:
        ids = await self._engine.encode(prompt)
        if _same_chat(prompt, self._prompt):
            self._root = ids
        return ids

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        beginning = self._beginning(prompt)
        parts = [] if beginning is None else self._take(beginning, sampling, n)
        for index, part in enumerate(parts):
            for chunk in part:
                served = only_asked(chunk, sampling.logprobs) if chunk.logprobs else chunk
                yield replace(served, index=index)
        if len(parts) == n:
            return
        if not beginning and beginning is not None and sampling.seed is not None:
            # With the seed that the samples have, the engine would draw the same ones.
            self._calls += 1
            sampling = replace(sampling, seed=sub_seed(sampling.seed, "more", self._calls))
        try:
            async with aclosing(self._engine.generate(prompt, sampling, n - len(parts))) as chunks:
                async for chunk in chunks:
                    yield replace(chunk, index=chunk.index + len(parts))
        except BudgetSpent:
            # What is left is what was there already.
            if not parts:
                raise

    def _beginning(self, prompt: Prompt) -> TokenIds | None:
        """What the prompt has behind the task's; None where it is another."""
        if not prompt.token_ids:
            return () if _same_chat(prompt, self._prompt) else None
        if self._root is None or prompt.token_ids[: len(self._root)] != self._root:
            return None
        return prompt.token_ids[len(self._root) :]

    def _take(self, beginning: TokenIds, sampling: Sampling, n: int) -> list[list[Chunk]]:
        """Up to n parts of samples that go on from a beginning and were not served there."""
        parts: list[list[Chunk]] = []
        if not self._fits(sampling):
            return parts
        served = self._served[beginning]
        for number, sample in enumerate(self._samples):
            if len(parts) == n:
                break
            if number in served:
                continue
            if part := self._part(sample, beginning, sampling):
                served.add(number)
                parts.append(part)
        return parts

    def _fits(self, sampling: Sampling) -> bool:
        """Whether the samples are drawn as a call wants it, but for where they end."""
        own = self._sampling
        has_logprobs = sampling.logprobs is None or (own.logprobs is not None and sampling.logprobs <= own.logprobs)
        return has_logprobs and _without_ends(sampling) == _without_ends(own)

    def _part(self, sample: Sample, beginning: TokenIds, sampling: Sampling) -> list[Chunk] | None:
        own = self._sampling
        ends = (sampling.stop, sampling.include_stop, sampling.max_tokens, sampling.min_tokens)
        if not beginning and ends == (own.stop, own.include_stop, own.max_tokens, own.min_tokens):
            return sample.chunks
        if sampling.min_tokens or not sampling.include_stop or not set(own.stop) <= set(sampling.stop):
            return None
        rest = _after(sample, beginning)
        part = _step(rest, sampling, own) if rest else None
        return [replace(part[0], number=sample.number), *part[1:]] if part else None


def _same_chat(one: Prompt, other: Prompt) -> bool:
    return (one.messages, one.template, one.token_ids) == (other.messages, other.template, other.token_ids)


def _without_ends(sampling: Sampling) -> Sampling:
    return replace(sampling, seed=None, stop=(), include_stop=False, max_tokens=None, min_tokens=None, logprobs=None)


def _after(sample: Sample, beginning: TokenIds) -> list[Chunk]:
    """The chunks behind a sample's first tokens; none where it begins otherwise, or in the middle of a chunk."""
    seen = 0
    for place, chunk in enumerate(sample.chunks):
        if seen == len(beginning):
            return sample.chunks[place:]
        new = chunk.token_ids
        if not new and chunk.completion_tokens:
            # The engine gives no token ids.
            return []
        if beginning[seen : seen + len(new)] != new:
            return []
        seen += len(new)
    return []


def _step(chunks: Sequence[Chunk], sampling: Sampling, own: Sampling) -> list[Chunk] | None:
    """What a call with these stop strings would have drawn, had it drawn these chunks; None where that cannot be told.

    As an engine does, it ends with the token in which a stop string ends, and its text with that string. A chunk of
    several tokens does not tell which of them that is, and a token that says more than the string must not lose it.
    """
    taken: list[Chunk] = []
    text, tokens, longest = "", 0, reach(sampling.stop)
    for chunk in chunks:
        if chunk.completion_tokens and not chunk.token_ids and not chunk.finish_reason:
            return None
        before, text = len(text), text + chunk.text
        tokens += len(chunk.token_ids)
        if found := first_stop(text, sampling.stop, before):
            return _stopped(taken, chunk, text, found, tokens, sampling.max_tokens)
        text = text[-longest:] if longest else ""
        if sampling.max_tokens is not None and tokens >= sampling.max_tokens and not chunk.finish_reason:
            cut = replace(chunk, finish_reason="length")
            return [*taken, cut] if tokens == sampling.max_tokens else None
        if chunk.finish_reason == "stop" and chunk.stop and not own.include_stop:
            chunk = replace(chunk, text=chunk.text + chunk.stop)  # noqa: PLW2901
        taken.append(chunk)
    return taken if sampling.max_tokens is None or tokens <= sampling.max_tokens else None


def _stopped(
    taken: list[Chunk], chunk: Chunk, text: str, found: Stop, tokens: int, most: int | None
) -> list[Chunk] | None:
    over = len(text) - found.end
    if over and (len(chunk.token_ids) != 1 or text[found.end :].strip()):
        return None
    if most is not None and tokens > most:
        return None
    last = replace(
        chunk,
        text=chunk.text[: len(chunk.text) - over],
        # Without the end of sequence, which may have come with it.
        completion_tokens=len(chunk.token_ids),
        finish_reason="stop",
        stop=found.text,
        reading=None,
    )
    return [*taken, last]


class ReplayPRM:
    """A reward model that is not asked again for what it has scored."""

    def __init__(self, prm: ProcessRewardModel) -> None:
        self.name = prm.name
        self.aggregation: Aggregation = prm.aggregation
        self.selector: Choice = prm.selector
        self.trained = prm.trained
        self._prm = prm
        self._known: dict[tuple[str, tuple[str, ...]], StepScores] = {}

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        keys = [(question, steps if isinstance(steps, tuple) else tuple(steps)) for steps in solutions]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        if new:
            scores = await self._prm.score(question, [steps for _, steps in new], on_tokens=on_tokens)
            self._known |= zip(new, scores, strict=True)
        return [self._known[key] for key in keys]
