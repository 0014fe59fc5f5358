"""From an input file to requests that can be answered, or to a failed batch."""

import asyncio
import time

from tts_server.batches.files import Files
from tts_server.batches.jobs import Jobs
from tts_server.batches.lines import LineReader
from tts_server.batches.records import Batch, LineError
from tts_server.batches.store import Store
from tts_server.errors import NotFound


async def validate(batch: Batch, store: Store, reader: LineReader) -> None:
    """Looks through a batch's input file; the batch is then in progress or failed, unless it was cancelled meanwhile.

    Raises:
        StorageFull: its requests do not fit; it can be tried again.
    """
    await store.jobs(Jobs.drop_requests, batch.id)
    try:
        file = await store.files(Files.get, batch.input_file_id, batch.owner, 0)
    except NotFound:
        return await _fail(batch, store, [_gone(batch)])
    after, read = -1, 0
    while not reader.gave_up and (pieces := await store.files(Files.pieces, file.id, after)):
        after = pieces[-1].number
        data = b"".join(piece.data for piece in pieces)
        read += len(data)
        requests = await asyncio.to_thread(reader.feed, data)
        if not reader.errors and not await store.jobs(Jobs.add_requests, batch.id, requests):
            return None
    requests = reader.end()
    if not reader.gave_up and read != file.bytes:
        return await _fail(batch, store, [_gone(batch)])
    if reader.errors:
        return await _fail(batch, store, reader.errors)
    if await store.jobs(Jobs.add_requests, batch.id, requests):
        await store.jobs(Jobs.begin, batch.id, int(time.time()))
    return None


async def _fail(batch: Batch, store: Store, errors: list[LineError]) -> None:
    await store.jobs(Jobs.fail, batch.id, errors, int(time.time()))


def _gone(batch: Batch) -> LineError:
    return LineError("file_not_found", f"The input file {batch.input_file_id} was deleted.", "input_file_id")
