"""Where requests are counted: outside of everything else, so that what is refused counts too."""

from starlette.types import ASGIApp, Receive, Scope, Send

from tts_server.middleware.stack import OPEN_PATHS
from tts_server.observe.metrics.counts import Metrics


class Measured:
    """Counts every request but those of probes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        with self._metrics.request(scope):
            return await self._app(scope, receive, send)
