"""One server's counts. What a request has cost is counted once, when it has ended, however it ended."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

from prm.backend.batching import OnBatch
from strategies.core.account import Account
from tts_server.admission.usage import Ledger
from tts_server.observe.metrics import families as f
from tts_server.planning.plan import Plan
from tts_server.request_state import RequestState

NO_SEARCH = "none"
"""The strategy of requests that run none."""
OTHER = "other"
"""The endpoint of requests that ask for something that is not there."""


class _Strategy:
    """What is counted of one strategy's requests. Looked up once: labels cost more than counting."""

    def __init__(self, metrics: "Metrics", name: str) -> None:
        self.duration = metrics.duration.labels(name)
        self.first_token = metrics.first_token.labels(name)
        self.discarded = metrics.discarded.labels(name)
        self._usage = {field: counter.labels(name) for field, counter in metrics.usage.items()}

    def count(self, account: Account) -> None:
        usage = account.usage
        for field, counter in self._usage.items():
            if spent := getattr(usage, field):
                counter.inc(spent)


class Metrics:
    """Counts, and a registry that shows them."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = f.REQUESTS.counter(registry)
        self.duration: Histogram = f.DURATION.histogram(registry)
        self.first_token: Histogram = f.FIRST_TOKEN.histogram(registry)
        self.usage: dict[str, Counter] = {
            "samples": f.SAMPLES.counter(registry),
            "completion_tokens": f.GENERATED.counter(registry),
            "prompt_tokens": f.PROMPT.counter(registry),
            "engine_prompt_tokens": f.ENGINE_PROMPT.counter(registry),
            "cached_prompt_tokens": f.CACHED.counter(registry),
            "prm_tokens": f.PRM_TOKENS.counter(registry),
            "prm_calls": f.PRM_CALLS.counter(registry),
        }
        self.discarded = f.DISCARDED.counter(registry)
        self.stops = f.STOPS.counter(registry)
        self.decisions = f.DECISIONS.counter(registry)
        self.prm_batch = f.PRM_BATCH.histogram(registry)
        self.prm_wait = f.PRM_WAIT.histogram(registry)
        self.queue_wait = f.QUEUE_WAIT.histogram(registry)
        self.running: dict[RequestState, None] = {}
        """The requests under way."""
        self.usage_of_owners = Ledger()
        self._strategies: dict[str, _Strategy] = {}
        self._requests: dict[tuple[str, str, str], Counter] = {}

    @contextmanager
    def request(self, state: RequestState) -> Iterator[None]:
        """Counts a request, and what it has cost."""
        self.running[state] = None
        try:
            yield
        finally:
            del self.running[state]
            self._ended(state)

    def prm_batches(self, prm: str) -> OnBatch:
        """What counts the batches of a reward model; its thread alone calls it."""
        size, wait = self.prm_batch.labels(prm), self.prm_wait.labels(prm)

        def began(waited: Sequence[float]) -> None:
            size.observe(len(waited))
            for seconds in waited:
                wait.observe(seconds)

        return began

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(Plain(self.registry))

    def _ended(self, state: RequestState) -> None:
        plans, accounts = state.plans, state.accounts
        name = plans[0].strategy if plans else NO_SEARCH
        # Nobody is known to have sent what was refused for its key.
        if state.computes and state.owner is not None:
            self.usage_of_owners.count(state.owner, state.status, accounts)
        self._count((state.endpoint or OTHER, name, str(state.status)))
        if not accounts:
            return
        if (strategy := self._strategies.get(name)) is None:
            strategy = self._strategies[name] = _Strategy(self, name)
        for account in accounts:
            strategy.count(account)
        if plans:
            strategy.duration.observe(time.monotonic() - state.began)
            self._searches(strategy, plans, state.began)

    def _searches(self, strategy: _Strategy, plans: Sequence[Plan], began: float) -> None:
        firsts = [plan.account.deadline.started + s for plan in plans if (s := plan.outcome.first_s) is not None]
        if firsts:
            strategy.first_token.observe(min(firsts) - began)
        for plan in plans:
            if lost := discarded(plan):
                strategy.discarded.inc(lost)
            if plan.account.stop_reason:
                self.stops.labels(plan.strategy, plan.account.stop_reason).inc()
            if (final := plan.outcome.final) and final.decision is not None:
                self.decisions.labels("true" if final.decision.get("explored") else "false").inc()

    def _count(self, labels: tuple[str, str, str]) -> None:
        if (counter := self._requests.get(labels)) is None:
            counter = self._requests[labels] = self.requests.labels(*labels)
        counter.inc()


def discarded(plan: Plan) -> int:
    """Generated tokens that are no part of what was returned."""
    account, final = plan.account, plan.outcome.final
    ends = [final.candidates[place] for place in final.ranking[: plan.choices]] if final else ()
    # Answers of one search may have a beginning in common.
    returned = {id(chunk): chunk.completion_tokens for end in ends for chunk in end.sample.chunks}
    return max(0, account.usage.completion_tokens - sum(returned.values()))


class Plain:
    """A registry without the time at which each of its metrics was made, of which nobody makes anything."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
