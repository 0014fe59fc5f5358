"""What one request carries from the first middleware to its end."""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

from strategies.core.account import Account, Spans
from tts_server.admission.queue import Flow
from tts_server.planning.plan import Plan

CLIENT_LEFT = 499
"""The status of a request whose client left before its answer began; nobody reads it."""
_KEY = "tts_server.request"


@dataclass(slots=True, eq=False)
class RequestState:
    """Made by the middleware `Entry`, or for a line of a batch by `dispatch`; what stands behind them fills it."""

    id: str
    owner: str | None = None
    """The name behind the API key, empty where there are no keys; None until the key is known."""
    is_batch_line: bool = False
    """Whether the server asks itself for a batch: the key was looked at when the batch was made, and the request takes
    no interactive request's place."""
    endpoint: str | None = None
    """The path with its parameters by name; None where there is no such path."""
    computes: bool = False
    """Whether it may compute something: who may compute no more can still fetch what was made."""
    flow: Flow | None = None
    """Its place in the queue for the engine."""
    plans: Sequence[Plan] = ()
    """The searches that it runs."""
    accounts: list[Account] = field(default_factory=list)
    """What it pays from; the owner pays when it has ended, however it ends."""
    spans: Callable[[str, str], Spans] | None = None
    """Makes what sees a search by spans, from the strategy and the trace's id; None where nothing is traced."""
    status: int = CLIENT_LEFT
    """The answer's, or that of the error by which a stream broke off."""
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, scope: Scope) -> "RequestState":
        """The state of the request with this scope."""
        state: RequestState = scope[_KEY]
        return state

    @classmethod
    def begun(cls, scope: Scope) -> "RequestState | None":
        """The state of a request that has one already: a line of a batch."""
        return scope.get(_KEY)

    def enter(self, scope: Scope) -> None:
        """Makes this the state of the request with this scope. No client can: a scope holds no header."""
        scope[_KEY] = self

    def bill(self, account: Account, strategy: str = "", trace_id: str = "") -> None:
        """Notes what the request pays from.

        Where the request is part of a distributed trace, so is what this account pays for: a strategy's search, of
        which the record has an id, or nothing but scores.
        """
        self.accounts.append(account)
        if self.spans:
            account.spans = self.spans(strategy, trace_id)

    @property
    def cost(self) -> int:
        """Tokens that it has cost so far: generated ones and the reward model's."""
        return sum(account.usage.completion_tokens + account.usage.prm_tokens for account in self.accounts)

    @property
    def log_prefix(self) -> str:
        return f"{self.id} {self.owner}" if self.owner else self.id


# Lines that a library logs in the course of a request carry its id, and no argument reaches them.
current: ContextVar[RequestState | None] = ContextVar("request_state", default=None)
"""The request under way, for the log alone; None outside of requests."""


def state_of(request: Request) -> RequestState:
    return RequestState.of(request.scope)


def owner_of(request: Request) -> str:
    """The name of who asks; empty where there are no keys."""
    return state_of(request).owner or ""
