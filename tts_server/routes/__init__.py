"""The HTTP routes, one file an endpoint."""

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.routing import Route

from tts_server.routes import (
    batches,
    chat,
    completions,
    files,
    health,
    metrics,
    models,
    prm,
    rerank,
    responses,
    strategies,
    tokenize,
    traces,
    usage,
)

__all__ = ["ROUTERS", "routes"]

ROUTERS: tuple[APIRouter, ...] = (
    chat.router,
    completions.router,
    responses.router,
    models.router,
    strategies.router,
    prm.router,
    rerank.router,
    tokenize.router,
    files.router,
    batches.router,
    traces.router,
    usage.router,
    metrics.router,
    health.router,
)


def routes() -> Iterator[Route]:
    """Every route of every router.

    They are listed here and not asked of the app, for newer releases of FastAPI do not list what they include.
    """
    return (route for router in ROUTERS for route in router.routes if isinstance(route, Route))
