"""The span of a request. It stands behind the keys: who has none begins no span and names no trace."""

from functools import partial

from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tts_server.middleware.stack import OPEN_PATHS
from tts_server.observe.otel.spans import Spans, Tracing, above, failed, under
from tts_server.request_state import RequestState


class Traced:
    """Takes in the caller's W3C trace context, and makes a span of every request but those of probes."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        state = RequestState.of(scope)
        span = self._begin(scope, state)
        state.spans = partial(Spans, self._tracing)
        try:
            with under(span):
                return await self._app(scope, receive, send)
        except Exception as error:
            failed(span, error)
            raise
        finally:
            _end(span, scope["method"], state)

    def _begin(self, scope: Scope, state: RequestState) -> Span:
        headers = Headers(scope=scope)
        attributes = {
            "http.request.method": scope["method"],
            "url.path": scope["path"],
            "tts.request_id": state.id,
        }
        context = above(headers.get("traceparent", ""), ",".join(headers.getlist("tracestate")))
        return self._tracing.begin(scope["method"], attributes, SpanKind.SERVER, context)


def _end(span: Span, method: str, state: RequestState) -> None:
    if state.endpoint:
        span.update_name(f"{method} {state.endpoint}")
        span.set_attribute("http.route", state.endpoint)
    span.set_attribute("http.response.status_code", state.status)
    if state.status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
