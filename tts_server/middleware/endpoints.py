"""The paths that the server answers, as metrics, spans and batches name them."""

from collections.abc import Iterable

from starlette.routing import Match, Route
from starlette.types import Scope


class Endpoints:
    """Tells which of the server's paths a request asks for.

    Args:
        routes: those of the server.
    """

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        served = {route.path: route.endpoint for route in routes}
        self.paths = tuple(served)
        self._plain = frozenset(path for path in served if "{" not in path)
        # Routes of Starlette's own kind, which match by nothing but their path.
        self._patterns = [Route(path, endpoint) for path, endpoint in served.items() if "{" in path]

    def of(self, scope: Scope) -> str | None:
        """The path, with its parameters by name; None where there is no such path."""
        path: str = scope["path"]
        if path in self._plain:
            return path
        return next((route.path for route in self._patterns if route.matches(scope)[0] is not Match.NONE), None)
