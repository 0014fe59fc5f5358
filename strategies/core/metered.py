"""What pays from an account: an engine and a reward model that count what they do and stop when the budget is spent."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import replace

from prm import Aggregation, Choice, OnTokens, PRMInputError, ProcessRewardModel, StepScores
from prm.base import check_scores
from strategies.core.account import Account
from strategies.core.contracts import Chunk, Engine, Prompt, Sampling, TokenIds
from strategies.core.deadline import Late
from strategies.core.engine_wrapper import EngineWrapper
from strategies.core.latency import CallTimer, ScoringTimer


class MeteredEngine(EngineWrapper):
    """An engine that pays from an account.

    When the budget is spent in the middle of a call, the call is aborted and each sample that was still growing ends
    with the finish reason `budget`; the iterator then ends as usual. A call that cannot begin at all raises
    `BudgetSpent`; one that asks for more samples than are left gets those that are left. A call that goes on from token
    ids with which another one began, or that were encoded, begins no samples: those are counted already.
    """

    def __init__(self, engine: Engine, account: Account) -> None:
        super().__init__(account.spans.engine(engine) if account.spans else engine)
        self._account = account
        self._beginnings: set[TokenIds] = set()
        self._drawn = 0

    async def encode(self, prompt: Prompt) -> TokenIds:
        account = self._account
        try:
            ids = await account.deadline.within(self._engine.encode(prompt))
        except Late:
            raise account.stop("deadline") from None
        if prompt == account.prompt:
            account.usage.prompt_tokens = len(ids)
        self._beginnings.add(ids)
        return ids

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        account, usage, deadline = self._account, self._account.usage, self._account.deadline
        first_call = usage.samples == 0
        n = self._admit(prompt.token_ids, n)
        numbers = range(self._drawn, self._drawn + n)
        self._drawn += n
        growing, lengths = set(numbers), dict[int, int]()
        has_all_tokens = account.budget.max_tokens is None
        timer = CallTimer(account.latency.engine, whole=first_call and not prompt.token_ids)
        account.live += n
        try:
            if first_call and account.prompt not in (None, prompt) and not usage.prompt_tokens and self.continues:
                await self.encode(account.prompt)
            with account.recorder.call(prompt, sampling, numbers) if account.recorder else nullcontext() as note:
                async with aclosing(self._engine.generate(prompt, sampling, n)) as chunks:
                    # Whatever is called here is called for each chunk.
                    while growing and ((has_all_tokens and deadline.ends_at is None) or not account.spent()):
                        waiting = anext(chunks, None)
                        try:
                            chunk = await (waiting if deadline.ends_at is None else deadline.within(waiting))
                        except Late:
                            break
                        if chunk is None:
                            raise RuntimeError(f"the engine ended its stream before {len(growing)} of {n} samples")
                        number = numbers.start + chunk.index
                        if number not in lengths:
                            chunk = replace(chunk, number=number)
                        lengths[number] = length = lengths.get(number, 0) + chunk.completion_tokens
                        if chunk.number == number or chunk.finish_reason or time.monotonic() >= timer.due_at:
                            timer.note(chunk, length)
                        if first_call and chunk.prompt_tokens:
                            self._note_prompt(chunk)
                            first_call = False
                        usage.engine_prompt_tokens += chunk.prompt_tokens
                        usage.cached_prompt_tokens += chunk.cached_tokens
                        usage.completion_tokens += chunk.completion_tokens
                        if note:
                            note(chunk)
                        if chunk.finish_reason and number in growing:
                            growing.remove(number)
                            account.live -= 1
                        yield chunk
                if growing and (reason := account.spent()):
                    account.stop(reason)
                    for number in sorted(growing):
                        cut = Chunk(number - numbers.start, finish_reason="budget")
                        if note:
                            note(cut)
                        yield cut
                timer.ended()
        finally:
            account.live -= len(growing)

    def _note_prompt(self, chunk: Chunk) -> None:
        """The search's first chunk tells the prompt's tokens, and which of them were cached."""
        usage = self._account.usage
        usage.prompt_tokens = usage.prompt_tokens or chunk.prompt_tokens
        usage.cached_tokens = min(chunk.cached_tokens, usage.prompt_tokens)

    def _admit(self, ids: TokenIds, n: int) -> int:
        if reason := self._account.spent():
            raise self._account.stop(reason)
        if self._goes_on(ids):
            return n
        n = self._account.begin(n)
        if ids:
            self._beginnings.add(ids)
        return n

    def _goes_on(self, ids: TokenIds) -> bool:
        """Whether there was a beginning of these token ids, and they are none themselves."""
        if ids in self._beginnings:
            return False
        return any(ids[: len(begun)] == begun for begun in self._beginnings if len(begun) < len(ids))


class MeteredPRM:
    """A reward model that pays from an account; raises `BudgetSpent` when it cannot, or at the deadline.

    A solution that cannot be scored, as one that is longer than the model's context, has a `fault` in place of scores,
    and the others have theirs; only a strict one raises PRMInputError.
    """

    def __init__(self, prm: ProcessRewardModel, account: Account, *, strict: bool = False) -> None:
        self._prm = account.spans.prm(prm) if account.spans else prm
        self._account = account
        self._strict = strict
        self.name = prm.name
        self.aggregation: Aggregation = prm.aggregation
        self.selector: Choice = prm.selector
        self.trained = prm.trained

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        account = self._account
        if reason := account.spent(prm=True):
            raise account.stop(reason)
        account.usage.prm_calls += 1
        with account.recorder.scoring(solutions) if account.recorder else nullcontext() as record:
            timer = ScoringTimer(account.latency.prm)

            def pay(tokens: int) -> None:
                timer.tokens += tokens
                account.usage.prm_tokens += tokens
                if record:
                    record.tokens += tokens
                if on_tokens:
                    on_tokens(tokens)

            try:
                with timer:
                    results = await account.deadline.within(self._scored(question, solutions, pay))
            except Late:
                raise account.stop("deadline") from None
            if record:
                record.results = results
        return results

    async def _scored(self, question: str, solutions: Sequence[Sequence[str]], on_tokens: OnTokens) -> list[StepScores]:
        try:
            # A reward model, and what sends its call on, knows plain tuples only.
            plain = [tuple(steps) for steps in solutions]
            results = await self._prm.score(question, plain, on_tokens=on_tokens)
        except PRMInputError as error:
            if self._strict:
                raise
            return await self._scored_apart(question, solutions, on_tokens, error)
        check_scores(solutions, results)
        return results

    async def _scored_apart(
        self, question: str, solutions: Sequence[Sequence[str]], on_tokens: OnTokens, error: PRMInputError
    ) -> list[StepScores]:
        """Scores what can be scored of a call that was refused."""
        if len(solutions) == 1:
            return [StepScores((), fault=str(error))]
        known = {i: StepScores((), fault=fault) for i, fault in error.faults.items()} | dict(error.scored)
        rest = [i for i in range(len(solutions)) if i not in known]
        # A model that does not tell which it cannot score is asked for one after the other.
        for group in [rest] if known and rest else [[i] for i in rest]:
            results = await self._scored(question, [solutions[i] for i in group], on_tokens)
            known |= zip(group, results, strict=True)
        return [known[i] for i in range(len(solutions))]
