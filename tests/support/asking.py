"""A client's user: what the client makes of a server, and what it sends."""

import asyncio
from collections.abc import Callable
from typing import Any

from scripted import scripted
from serving import serving

from prm.fake import FakePRM
from tts_server.client import Client
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine

Ask = Callable[[Client], Any]


def served(work: Callable[[str], Any], engine: FakeEngine | None = None, settings: Settings | None = None) -> Any:
    """What code without `await` makes of a server's URL."""

    async def main() -> Any:
        async with serving(engine, [FakePRM()], settings) as http:
            return await asyncio.to_thread(work, str(http.base_url))

    return asyncio.run(main())


def asked(ask: Ask, engine: FakeEngine | None = None, **options: Any) -> Any:
    """What a client's user gets."""

    def work(url: str) -> Any:
        with Client(url, model="fake", **options) as client:
            return ask(client)

    return served(work, engine)


def sent(ask: Ask) -> dict[str, Any]:
    """The body that a call sends."""

    async def main() -> Any:
        async with scripted() as server:

            def work() -> None:
                with Client(server.url, model="fake") as client:
                    ask(client)

            await asyncio.to_thread(work)
            return server.requests[0][1]

    body: dict[str, Any] = asyncio.run(main())
    return body
