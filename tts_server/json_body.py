"""JSON bodies as the standard has them: no NaN, no lone surrogates, no bottomless nesting."""

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute


class JSONRoute(APIRoute):
    """A route whose body is parsed by orjson: what Python's own parser lets through breaks later, as a 500."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_JSONRequest(request.scope, request.receive))

        return strictly


class _JSONRequest(Request):
    async def json(self) -> Any:
        return orjson.loads(await self.body())
