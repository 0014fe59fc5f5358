"""Work for a client that may leave."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tts_server.middleware.disconnect import ClientLeft, connected


class Client:
    """Sends messages when it is told to; leaves when it is told to."""

    def __init__(self) -> None:
        self._sent = asyncio.Queue[dict[str, Any]]()

    async def receive(self) -> dict[str, Any]:
        return await self._sent.get()

    def send(self, kind: str) -> None:
        self._sent.put_nowait({"type": kind})


class Work:
    """Waits for what it returns or raises; notes how it ended."""

    def __init__(self) -> None:
        self.result = asyncio.get_running_loop().create_future()
        self.cancelled = False
        self.fails_to_clean_up = False

    async def run(self) -> str:
        try:
            return str(await self.result)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            self.cancelled = True
            if self.fails_to_clean_up:
                raise OSError("cannot clean up") from None
            raise


async def begun(client: Client, work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
    """The call, as far as it comes by itself."""

    async def main() -> str:
        async with connected(client.receive):
            return await work

    call = asyncio.create_task(main())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not call.done()
    return call


def test_the_result_or_error_of_the_work_comes_through() -> None:
    async def main() -> None:
        for result, error in (("done", None), (None, ValueError("no"))):
            client, work = Client(), Work()
            client.send("http.request")
            call = await begun(client, work.run())
            if error:
                work.result.set_exception(error)
                with pytest.raises(ValueError, match="no"):
                    await call
            else:
                work.result.set_result(result)
                assert await call == "done"
            assert not work.cancelled
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_when_the_client_leaves_the_work_has_been_cancelled() -> None:
    async def main() -> None:
        client, work = Client(), Work()
        call = await begun(client, work.run())
        client.send("http.disconnect")
        with pytest.raises(ClientLeft):
            await call
        assert work.cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_failure_while_the_work_is_cancelled_comes_through() -> None:
    async def main() -> None:
        client, work = Client(), Work()
        work.fails_to_clean_up = True
        call = await begun(client, work.run())
        client.send("http.disconnect")
        with pytest.raises(OSError, match="cannot clean up"):
            await call

    asyncio.run(main())


def test_cancelling_the_caller_cancels_the_work() -> None:
    async def main() -> None:
        client, work = Client(), Work()
        call = await begun(client, work.run())
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert work.cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
