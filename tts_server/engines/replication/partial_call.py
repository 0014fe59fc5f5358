"""One request to one of several upstreams: all samples of a call, or the rest of one."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from strategies.core.contracts import Chunk, Prompt, Sampling
from tts_server.engines.replication.replay import Branch, Seam
from tts_server.engines.replication.routing import LOST, Replica
from tts_server.errors import APIError


class Part:
    """The samples that one request asks for.

    Args:
        prompt: what the samples continue.
        sampling: how they are drawn.
        branches: the samples.
        origin: the prompt and the sampling of the whole call, where this is the rest of one of its samples.
        seam: joins the rest to the text before it.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        branches: Sequence[Branch],
        *,
        origin: tuple[Prompt, Sampling] | None = None,
        seam: Seam | None = None,
    ) -> None:
        self.prompt = prompt
        self.origin = origin or (prompt, sampling)
        self.is_rest = origin is not None
        self.seam = seam
        self.cause: APIError | None = None
        """Why the last request was lost."""
        self._sampling = sampling
        self._branches = branches
        self._asked = False

    @property
    def growing(self) -> list[Branch]:
        return [branch for branch in self._branches if not branch.ended]

    @property
    def fresh(self) -> bool:
        """Whether a replica may be asked for it as it stands, because none has sent anything of it yet."""
        if self.seam:
            return not self._asked
        return not any(branch.grown or branch.ended for branch in self._branches)

    async def grow(self, replica: Replica) -> AsyncGenerator[Chunk, None]:
        """Streams the samples from a replica. Samples that the replica loses just stop, and `cause` says why."""
        self.cause, self._asked = None, True
        live = len(self._branches)
        replica.live += live
        try:
            async with aclosing(replica.engine.generate(self.prompt, self._sampling, live)) as chunks:
                async for chunk in chunks:
                    if isinstance(chunk.error, LOST):
                        self.cause = chunk.error
                        continue
                    joined = self._joined(chunk)
                    live -= joined.finish_reason is not None
                    replica.live -= joined.finish_reason is not None
                    yield joined
                    if self.seam and self.seam.ended:
                        return
        except LOST as error:
            self.cause = error
        finally:
            replica.live -= live

    def failed(self, error: APIError) -> list[Chunk]:
        """The last chunks of the samples that have not ended."""
        return [Chunk(branch.index, finish_reason="error", error=error) for branch in self.growing]

    def _joined(self, chunk: Chunk) -> Chunk:
        branch = self._branches[chunk.index]
        if branch.index != chunk.index:
            chunk = replace(chunk, index=branch.index)
        if self.seam:
            chunk = self.seam.join(chunk)
        branch.note(chunk)
        return chunk
