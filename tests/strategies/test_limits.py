"""Any budget, any strategy, any latencies: no limit is passed by more than what was under way, and there is an answer.

All of it in virtual time: what a deadline cuts does not depend on the machine.
"""

from contextlib import aclosing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from searching import CrowdedEngine, begin, world
from virtual_time import in_virtual_time

import strategies
from prm import FakePRM
from strategies.core.account import Account, Budget
from strategies.core.contracts import Final

TOKENS_OF_A_SOLUTION = 7
"""That the reward model of these tests computes."""

budgets = st.builds(
    Budget,
    max_samples=st.none() | st.integers(1, 12),
    max_tokens=st.none() | st.integers(1, 200),
    max_prm_tokens=st.none() | st.integers(1, 100),
    deadline_s=st.none() | st.floats(0.001, 5.0),
)
seconds = st.sampled_from([0.0, 0.001, 0.03, 0.4, 30.0])


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    budget=budgets,
    token_s=seconds,
    scoring_s=seconds,
    chunk_tokens=st.integers(1, 4),
    steps=st.integers(1, 8),
    knows=st.none() | st.integers(1, 200),
)
@pytest.mark.parametrize("name", list(strategies.registry()))
def test_no_limit_is_passed(
    name: str, budget: Budget, token_s: float, scoring_s: float, chunk_tokens: int, steps: int, knows: int | None
) -> None:
    entry = strategies.get(name)
    engine = CrowdedEngine(world(steps=steps, gap=1), chunk_tokens=chunk_tokens, token_s=token_s)
    prm = FakePRM(delay_s=scoring_s, tokens=TOKENS_OF_A_SOLUTION) if entry.scored else None

    async def main() -> tuple[Account, Final, float]:
        account = Account(budget)
        if knows:
            account.latency.engine.token.add(token_s, 1)
            account.latency.engine.answer.add(knows)
        options = {"n": 4} if "n" in entry.options.model_fields else {}
        async with aclosing(begin(entry, engine, prm, account=account, **options)) as events:
            *_, final = [event async for event in events]
        assert isinstance(final, Final)
        return account, final, account.wall_s

    account, final, wall_s = in_virtual_time(main())
    usage = account.usage
    assert usage.completion_tokens == engine.generated
    assert engine.live == 0
    if budget.max_samples is not None:
        assert usage.samples <= budget.max_samples
    if budget.max_tokens is not None:
        # One step of each live branch; a last one also has the end of sequence.
        assert usage.completion_tokens <= budget.max_tokens + engine.peak * (chunk_tokens + 1)
    if budget.deadline_s is not None:
        assert wall_s <= budget.deadline_s + 1e-6
    if budget.max_prm_tokens is not None:
        # A call that has begun is paid: of those under way at once, each has no more than its solutions.
        assert usage.prm_tokens % TOKENS_OF_A_SOLUTION == 0
    passed = {
        "max_samples": usage.samples == budget.max_samples,
        "max_tokens": budget.max_tokens is not None and usage.completion_tokens >= budget.max_tokens,
        "max_prm_tokens": budget.max_prm_tokens is not None and usage.prm_tokens >= budget.max_prm_tokens,
        "deadline": budget.deadline_s is not None,
        None: all(c.sample.finish_reason != "budget" for c in final.candidates),
    }
    assert passed[account.stop_reason]
    assert final.best.sample.finish_reason in ("eos", "stop", "length", "budget")
