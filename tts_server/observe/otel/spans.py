"""Spans of a request, its searches, and their calls of the engine and of the reward model.

No strategy knows of it: an account hands whatever it meters to `Spans`. What a span tells is numbers and names; nothing
of what was asked and answered, and of an error only its kind.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from prm import Aggregation, Choice, OnTokens, ProcessRewardModel, StepScores
from strategies.core.account import Account
from strategies.core.contracts import Chunk, Engine, Event, Prompt, Sampling
from strategies.core.engine_wrapper import EngineWrapper
from tts_server import __version__
from tts_server.logs import kinds
from tts_server.trace_place import TracePlace, trace_place

Attributes = Mapping[str, str | int | float | bool | Sequence[str]]

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans.

    Args:
        provider: takes them; shut down by `close`.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tts_server", __version__)

    def begin(
        self, name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL, above: Context | None = None
    ) -> Span:
        """A span below `above`, or below that under which this is called; whoever began it ends it."""
        return self._tracer.start_span(name, above, kind, attributes)

    async def close(self) -> None:
        """Sends what is not sent yet, which is bounded by the exporter's own timeouts."""
        await asyncio.to_thread(self._provider.shutdown)


def above(traceparent: str, tracestate: str) -> Context:
    """The context that a caller's headers tell; an empty one where they tell none."""
    return _PROPAGATOR.extract({"traceparent": traceparent, "tracestate": tracestate}, Context())


@contextmanager
def under(span: Span) -> Iterator[None]:
    """What begins meanwhile is below the span, here and in the upstreams that are called.

    Nothing may be yielded meanwhile: it would leak into whoever reads.
    """
    headers: dict[str, str] = {}
    context = set_span_in_context(span)
    _PROPAGATOR.inject(headers, context)
    place = TracePlace(headers["traceparent"], headers.get("tracestate", "")) if headers else None
    before, token = trace_place.set(place), attach(context)
    try:
        yield
    finally:
        detach(token)
        trace_place.reset(before)


def failed(span: Span, error: BaseException) -> None:
    """Marks a span, without the error's words."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, kinds(error)))


class Spans:
    """What an account has seen by spans.

    Args:
        tracing: makes them.
        strategy: what the account pays for.
        trace_id: of the search's own record.
    """

    def __init__(self, tracing: Tracing, strategy: str, trace_id: str) -> None:
        self._tracing = tracing
        self._strategy = strategy
        self._trace_id = trace_id

    async def search(self, events: AsyncGenerator[Event, None], account: Account) -> AsyncGenerator[Event, None]:
        """The events of the search, as they are."""
        about: Attributes = {"tts.strategy": self._strategy, "tts.trace_id": self._trace_id}
        span = self._tracing.begin(f"search {self._strategy}", about)
        try:
            async with aclosing(events):
                while True:
                    with under(span):
                        event = await anext(events, None)
                    if event is None:
                        break
                    yield event
        except Exception as error:
            failed(span, error)
            raise
        finally:
            span.set_attributes(_cost(account))
            span.end()

    def engine(self, engine: Engine) -> Engine:
        """The engine, with a span a call."""
        return _TracedEngine(engine, self._tracing)

    def prm(self, prm: ProcessRewardModel) -> ProcessRewardModel:
        """The reward model, with a span a call."""
        return _TracedPRM(prm, self._tracing)


def _cost(account: Account) -> Attributes:
    usage = account.usage
    stopped = {"tts.stop_reason": account.stop_reason} if account.stop_reason else {}
    return {
        "gen_ai.usage.input_tokens": usage.engine_prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
        "tts.cached_prompt_tokens": usage.cached_prompt_tokens,
        "tts.prm_tokens": usage.prm_tokens,
        "tts.prm_calls": usage.prm_calls,
        "tts.samples": usage.samples,
        **stopped,
    }


class _TracedEngine(EngineWrapper):
    def __init__(self, engine: Engine, tracing: Tracing) -> None:
        super().__init__(engine)
        self._tracing = tracing

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        span = self._tracing.begin("generate", _asked(self.model, sampling, n), SpanKind.CLIENT)
        made = _Made(n)
        try:
            async with aclosing(self._engine.generate(prompt, sampling, n)) as chunks:
                while True:
                    # What an engine sends, it sends while its next chunk is waited for.
                    with under(span):
                        chunk = await anext(chunks, None)
                    if chunk is None:
                        break
                    made.add(chunk)
                    yield chunk
        except Exception as error:
            failed(span, error)
            raise
        finally:
            span.set_attributes(made.attributes)
            span.end()


class _Made:
    """What a call's samples came to."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._prompt = self._cached = self._completion = 0
        self._ends: list[str] = []

    def add(self, chunk: Chunk) -> None:
        self._prompt += chunk.prompt_tokens
        self._cached += chunk.cached_tokens
        self._completion += chunk.completion_tokens
        if chunk.finish_reason:
            self._ends.append(chunk.finish_reason)

    @property
    def attributes(self) -> Attributes:
        return {
            "gen_ai.usage.input_tokens": self._prompt,
            "gen_ai.usage.output_tokens": self._completion,
            "tts.cached_prompt_tokens": self._cached,
            "gen_ai.response.finish_reasons": self._ends,
            "tts.aborted_samples": self._n - len(self._ends),
        }


def _asked(model: str, sampling: Sampling, n: int) -> Attributes:
    asked: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": model,
        "gen_ai.request.choice.count": n,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.seed": sampling.seed,
    }
    return {name: value for name, value in asked.items() if value is not None}


class _TracedPRM:
    def __init__(self, prm: ProcessRewardModel, tracing: Tracing) -> None:
        self._prm = prm
        self._tracing = tracing
        self.name = prm.name
        self.aggregation: Aggregation = prm.aggregation
        self.selector: Choice = prm.selector
        self.trained = prm.trained

    async def score(
        self, question: str, solutions: Sequence[Sequence[str]], *, on_tokens: OnTokens | None = None
    ) -> list[StepScores]:
        asked: Attributes = {
            "tts.prm": self.name,
            "tts.solutions": len(solutions),
            "tts.steps": sum(map(len, solutions)),
        }
        span = self._tracing.begin("score", asked, SpanKind.CLIENT)
        computed = 0

        def pay(tokens: int) -> None:
            nonlocal computed
            computed += tokens
            if on_tokens:
                on_tokens(tokens)

        try:
            with under(span):
                return await self._prm.score(question, solutions, on_tokens=pay)
        except Exception as error:
            failed(span, error)
            raise
        finally:
            span.set_attribute("tts.prm_tokens", computed)
            span.end()
