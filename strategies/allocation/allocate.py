"""One compute-optimal allocation under way: draws the pilot, judges it, spends on, and tells why."""

import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from prm import Aggregation, PRMError, ProcessRewardModel
from strategies.allocation import prior_table as priors
from strategies.allocation.arms import VOTES, Arms, missing, pilot_wall_s
from strategies.allocation.decision import HARDEST, Choice, Pilot, Reason, decision
from strategies.allocation.difficulty import Estimate, estimate, features
from strategies.allocation.pilot import Evidence
from strategies.allocation.policy_table import STOP, Cell, Policy, choose, complete_options, in_use
from strategies.allocation.replay import ReplayEngine, ReplayPRM
from strategies.allocation.vote_value import Vote
from strategies.core.account import Account, BudgetSpent
from strategies.core.contracts import Engine, Event, Final, Incumbent, Progress, Refused, Task, text_of
from strategies.core.registry import get
from strategies.sampling.draw import elect, with_temperature
from strategies.sampling.stopping import is_settled, is_unanimous
from strategies.sampling.streams import sub_seed

PILOT = 4
"""Samples: Beta stopping at 0.95 never stops before four agree (2305.11860)."""
TYPICAL = 256
"""Tokens of a solution where nothing tells them: with a budget below those of four the pilot is smaller."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """The strategy's options."""

    target_accuracy: float | None
    accept_score: float | None
    confidence: float
    min_gain: float
    exploration: float
    aggregation: Aggregation | None


class Allocation:
    """One question's.

    Raises:
        Refused: a wish needs a reward model and there is none.
    """

    def __init__(
        self, task: Task, engine: Engine, prm: ProcessRewardModel | None, account: Account, wishes: Wishes
    ) -> None:
        if wishes.accept_score is not None and prm is None:
            raise Refused("accept_score needs a reward model and none is loaded", "tts.accept_score")
        self._engine = engine
        self._account = account
        self._wishes = wishes
        self._note = _mismatch(account, task, engine, prm)
        used_policy = in_use(account)
        self._policy = used_policy.policy if used_policy and not self._note else None
        # What was fitted without a reward model says nothing of arms with one.
        used = prm if (self._policy is None or self._policy.prm) and account.budget.max_prm_tokens != 0 else None
        self._prm = ReplayPRM(used) if used else None
        self._size = _pilot_size(task, account, self._policy)
        sampling = with_temperature(task.sampling) if self._size > 1 else task.sampling
        self._task = replace(task, sampling=sampling)
        self._model = self._policy.difficulty if self._policy else None
        self._seen = Evidence(self._task, engine, account, bool(self._model and self._model.needs_logprobs))
        self._estimate: Estimate | None = None
        self._of_pilot: Mapping[str, Any] = {}
        self._choice = Choice()
        self._outcome: Final | None = None
        """The arm's own end."""

    async def run(self) -> AsyncGenerator[Event, None]:
        """The whole search."""
        async with aclosing(self._seen.draw(self._size)) as drawing:
            async for line in drawing:
                yield line
        reason = await self._judge_pilot()
        self._note_pilot()
        yield Incumbent((await self._seen.elect("majority")).best)
        while reason is None:
            self._choose()
            yield Progress(self._told())
            cell = self._choice.cell
            if cell is None or cell.strategy == STOP:
                reason = "no_better_arm"
            elif not self._is_worth(cell):
                reason = "no_gain"
                if self._seen.drawn.samples <= self._seen.pilot.samples:
                    self._choice.cell = None
            elif cell.strategy in VOTES and not self._seen.short and (more := missing(cell, self._seen.drawn)):
                # Each wave doubles what there is, so that there are few of them.
                async with aclosing(self._seen.draw(min(self._seen.drawn.samples, more))) as drawing:
                    async for line in drawing:
                        yield line
                yield Incumbent((await self._seen.elect("majority")).best)
                reason = self._judge_wave()
            else:
                async with aclosing(self._arm(cell)) as events:
                    async for event in events:
                        yield event
                reason = self._judge_arm()
        final = await self._final(reason)
        yield replace(final, decision=self._decision(final, reason))

    # What the samples say.

    async def _judge_pilot(self) -> Reason | None:
        """Why the pilot is all that there will be."""
        votes, least = self._seen.votes, self._wishes.accept_score
        if self._seen.short:
            return "budget"
        agreed = is_unanimous(votes, len(votes)) and is_settled(votes, self._wishes.confidence)
        if agreed and least is None:
            return "unanimous"
        unheard = all(vote is None for vote in votes)
        # A table that was fitted on pilots without scores has not paid for them either.
        asked = self._model is None or self._model.needs_scores or least is not None or unheard
        if self._prm and asked:
            await self._seen.score(self._prm, self._wishes.aggregation)
        scores = [attempt.score for attempt in self._seen.attempts if attempt.score is not None]
        if agreed and least is not None and scores and sum(scores) / len(scores) >= least:
            return "unanimous"
        return "no_votes" if unheard else None

    def _note_pilot(self) -> None:
        if attempts := self._seen.attempts:
            self._estimate = estimate(attempts, self._model, self._size)
            told = {name: round(value, 6) for name, value in features(attempts).items()}
            self._of_pilot = {"difficulty": round(self._estimate.p, 6), "features": told}

    def _judge_wave(self) -> Reason | None:
        """Why no more votes are needed; where the best score decides, they do not tell."""
        if self._seen.short or self._by_score(self._choice.cell):
            return None
        return "settled" if is_settled(self._seen.votes, self._wishes.confidence) else None

    def _is_worth(self, cell: Cell) -> bool:
        """Whether an arm gains as much a thousand tokens as is asked for; one that needs nothing more always is."""
        seen, least = self._seen, self._wishes.min_gain
        more = missing(cell, seen.drawn) if cell.strategy in VOTES else 1
        if not least or seen.short or not more or self._choice.explored:
            return True
        told = cell.strategy not in VOTES or self._by_score(cell)
        return 1000 * (self._tabled_rate(cell) if told else self._voted_rate(more)) >= least

    def _voted_rate(self, most: int) -> float:
        """What so many votes, or fewer, raise the chance of a right answer by at best, a token."""
        attempts, known = self._seen.attempts, self._estimate
        votes = Counter(vote for vote in self._seen.votes if vote is not None).most_common(2)
        first, second = ([count for _, count in votes] + [0, 0])[:2]
        tokens = max(1.0, self._seen.drawn.tokens / max(1, len(attempts)))
        return Vote(known.p if known else 0.0, len(attempts), first, second).rate(most) / tokens

    def _tabled_rate(self, cell: Cell) -> float:
        """The same, as the table has it."""
        stop = self._stop(cell.bin)
        return (cell.accuracy - (stop.accuracy if stop else 0.0)) / max(1.0, cell.tokens.mean - self._seen.drawn.tokens)

    def _by_score(self, cell: Cell | None) -> bool:
        return cell is not None and cell.strategy in VOTES and complete_options(cell)["selector"] == "best"

    def _judge_arm(self) -> Reason | None:
        if self._choice.failed:
            return "failed"
        if self._account.stop_reason or self._seen.short:
            return "budget"
        return "done" if self._outcome else None

    # What is chosen.

    def _choose(self) -> None:
        """The arm for what is known now. On the hardest questions there is one attempt, and none after it."""
        choice, seen = self._choice, self._seen
        if choice.locked:
            return
        self._estimate = estimate(seen.attempts, self._model, self._size)
        here = self._bin(self._estimate)
        cells = self._cells(here)
        drawn = seen.drawn
        arms = Arms(self._task, self._engine, self._prm, self._account, pilot_wall_s(cells, drawn.pilot))
        fitting = [cell for cell in cells if cell not in choice.refused and arms.fits(cell, drawn)]
        choice.cell = choose(fitting, self._wishes.target_accuracy)
        if not choice.made:
            self._explore(fitting)
        choice.made = True
        choice.locked = choice.explored or here == HARDEST

    def _stop(self, here: int | None) -> Cell | None:
        """What the table says of the pilot's vote alone."""
        cells = [] if here is None else self._cells(here)
        return next((cell for cell in cells if cell.strategy == STOP), None)

    def _explore(self, fitting: Sequence[Cell]) -> None:
        seed = self._task.sampling.seed
        rng = random.Random() if seed is None else random.Random(sub_seed(seed, "exploration"))
        others = [cell for cell in fitting if cell is not self._choice.cell]
        if others and rng.random() < self._wishes.exploration:
            self._choice.cell, self._choice.explored = rng.choice(others), True

    def _cells(self, here: int) -> list[Cell]:
        if self._policy:
            return self._policy.cells_of(here)
        known = priors.cells(self._seen.pilot, scored=self._prm is not None)
        return [cell for cell in known if cell.bin == here]

    def _bin(self, known: Estimate) -> int:
        return self._policy.bin_of(known.p) if self._policy else priors.bin_of(known.p)

    def _told(self) -> str:
        cell, known = self._choice.cell, self._estimate
        arm = f"{cell.strategy} {dict(cell.options) or ''}".strip() if cell else STOP
        return f"one sample is right with a chance of about {known.p:.2f}: {arm}" if known else arm

    # What is spent.

    async def _arm(self, cell: Cell) -> AsyncGenerator[Event, None]:
        """Runs an arm on what was drawn already."""
        options = complete_options(cell)
        replay = ReplayEngine(self._engine, self._task.prompt, self._task.sampling)
        replay.keep(self._seen.samples)
        if cell.strategy in VOTES:
            options |= {"n": max(1, replay.kept)} | ({"stopping": "none"} if "stopping" in options else {})
        if options.get("aggregation", "") is None:
            options["aggregation"] = self._wishes.aggregation
        entry = get(cell.strategy)
        try:
            async with aclosing(entry.run(self._task, replay, self._prm, self._account, **options)) as events:
                async for event in events:
                    if isinstance(event, Final):
                        self._outcome = event
                    elif isinstance(event, Progress) or _is_whole(event):
                        yield event
        except Refused as refusal:
            self._choice.refuse(cell)
            yield Progress(f"{cell.strategy} is left out: {refusal}")
        except BudgetSpent:
            self._seen.short = True
        except PRMError:
            raise
        except Exception as error:
            self._seen.fail(error)
            self._choice.failed = True
            yield Progress(f"{cell.strategy} failed: what was drawn before decides")

    # How it ends.

    async def _final(self, reason: Reason) -> Final:
        if self._outcome is None or self._choice.cell is None:
            scored = any(candidate.score is not None for candidate in self._seen.candidates)
            return await self._seen.elect("best" if reason == "no_votes" and scored else "majority")
        return await self._joined(self._outcome, get(self._choice.cell.strategy).continues)

    async def _joined(self, outcome: Final, is_search: bool) -> Final:
        """The arm's end and what was drawn before; the ends of a search and the pilot's samples vote together."""
        known = Counter(candidate.text for candidate in outcome.candidates)
        rest = []
        for candidate in self._seen.shown(self._seen.candidates):
            if known[candidate.text]:
                known[candidate.text] -= 1
            else:
                rest.append(candidate)
        if not rest:
            return outcome
        everyone = (*outcome.candidates, *rest)
        if is_search or not outcome.best.sample.finished:
            return await elect(everyone, outcome.selector, self._account.seconds_left)
        places = range(len(outcome.candidates), len(everyone))
        return replace(outcome, candidates=everyone, ranking=(*outcome.ranking, *places))

    def _decision(self, final: Final, reason: Reason) -> dict[str, Any]:
        here = self._bin(self._estimate) if self._estimate else None
        told = {"policy": "fitted" if self._policy else "prior", "policy_note": self._note}
        cell = self._choice.cell or self._stop(here)
        pilot, predicted = Pilot(self._seen.pilot, self._of_pilot), self._predicted(cell, reason)
        return told | decision(
            pilot, self._estimate, here, cell, predicted, final, reason, explored=self._choice.explored
        )

    def _predicted(self, cell: Cell | None, reason: Reason) -> float | None:
        """The accuracy that the table predicts; what was not measured predicts nothing."""
        if reason == "unanimous":
            return self._policy.agreed if self._policy else None
        return cell.accuracy if cell and cell.problems else None


def _mismatch(account: Account, task: Task, engine: Engine, prm: ProcessRewardModel | None) -> str | None:
    """Why the policy that there is does not hold."""
    if account.policy is None:
        return None
    first = task.prompt.messages[:1]
    system = "".join(text_of(turn) for turn in first if turn["role"] in ("system", "developer"))
    return account.policy.mismatch(engine.model, prm.name if prm else None, system)


def _pilot_size(task: Task, account: Account, policy: Policy | None) -> int:
    """Fewer samples where the budget would cut them all."""
    n = policy.pilot.n if policy else PILOT
    if (left := account.tokens_left) is not None:
        n = min(n, max(1, int(left / _typical(task, account, policy))))
    return max(n, task.choices)


def _typical(task: Task, account: Account, policy: Policy | None) -> float:
    """Tokens of a solution: the table's, else those of late answers, and no more than one may have."""
    stops = [cell.tokens.mean for cell in policy.cells if cell.strategy == STOP] if policy else []
    if policy and stops:
        return max(1.0, sum(stops) / len(stops) / policy.pilot.n)
    usual = account.latency.answer_tokens or TYPICAL
    return max(1.0, min(usual, task.sampling.max_tokens or usual))


def _is_whole(event: Event) -> bool:
    """Whether it is an incumbent that may stand for the pilot's."""
    return isinstance(event, Incumbent) and event.candidate.sample.finished
