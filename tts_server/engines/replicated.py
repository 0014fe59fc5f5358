"""Several OpenAI-compatible upstreams that serve the same model, as one engine.

The fleet checks each replica in the background. A call goes to the replica that has the prompt's beginning in its cache
(`routing`). When that replica fails before a sample has begun, another one gets the call. When it fails later, another
one continues the sample from its token ids (`replay`); with upstreams that take no token ids, or that do not tell the
text of token ids, the sample fails. Each generated token counts once; a prompt counts for every replica that computed
it.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from strategies.core.concurrency import merged
from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, TokenIds
from tts_server.engines.openai.parallel import sample_seed
from tts_server.engines.openai_http import OpenAIEngine
from tts_server.engines.replication.breaker import Breaker
from tts_server.engines.replication.fleet import Fleet, FleetTokenizer
from tts_server.engines.replication.partial_call import Part
from tts_server.engines.replication.replay import Branch, Seam, can_continue, continued, spelled
from tts_server.engines.replication.routing import LOST, Homes, Replica, Turns
from tts_server.errors import APIError


class ReplicatedEngine:
    """Upstreams that serve the same model.

    Args:
        urls: their base URLs, with or without `/v1`.
        name: what clients call the model; the upstreams' name for it if not given.
        upstream_model: what the upstreams call it; the first one they serve if not given.
        api_key: goes to these URLs and nowhere else.
        retries: rounds over the replicas after the first one; also, how many may break down over one call.
        backoff_s: before the second round; doubles with each.
        check_s: between two looks at each upstream, and until one that keeps failing is tried again.
        options: further ones of `OpenAIEngine`.

    Raises:
        ValueError: a URL is not an http or https URL, or stands there twice.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        name: str | None = None,
        upstream_model: str | None = None,
        api_key: str | None = None,
        retries: int = 2,
        backoff_s: float = 0.5,
        check_s: float = 5.0,
        **options: float,
    ) -> None:
        engines = [
            OpenAIEngine(url, name=name, upstream_model=upstream_model, api_key=api_key, retries=0, **options)
            for url in urls
        ]
        self.model = name or upstream_model or ""
        self.max_model_len: int | None = None
        self.continues = False
        self.constrains = True
        self.upstreams = tuple(Replica(engine, Breaker(pause_s=check_s)) for engine in engines)
        origins = [replica.origin for replica in self.upstreams]
        if twice := [origin for origin in origins if origins.count(origin) > 1]:
            raise ValueError(f"The upstream {twice[0]} is given twice.")
        self._fleet = Fleet(self.upstreams, retries=retries, backoff_s=backoff_s, check_s=check_s)
        self._homes = Homes()

    @property
    def calls_itself(self) -> bool:
        return self._fleet.lead.calls_itself

    @property
    def tool_format(self) -> str | None:
        return self._fleet.lead.tool_format

    @property
    def thinks(self) -> bool:
        return self._fleet.lead.thinks

    @property
    def tokenizer(self) -> FleetTokenizer:
        self._fleet.turns()
        if not self.continues:
            raise Refused("The upstreams speak plain chat: they take no texts and give no token ids.", "prompt")
        return FleetTokenizer(self._fleet)

    @property
    def healthy(self) -> bool:
        """Whether any of them is."""
        return self._fleet.healthy

    async def start(self) -> None:
        await self._fleet.start()
        lead = self._fleet.lead
        self.model, self.max_model_len, self.continues = lead.model, lead.max_model_len, lead.continues

    async def close(self) -> None:
        await self._fleet.close()

    async def encode(self, prompt: Prompt) -> TokenIds:
        """The prompt's token ids, from any upstream's own tokenizer and template.

        Raises:
            Refused: the upstreams speak plain chat.
            APIError: they refused or failed.
        """
        if prompt.token_ids and self.continues:
            return prompt.token_ids
        return await self._fleet.ask(lambda engine: engine.encode(prompt))

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        return await self._fleet.ask(lambda engine: engine.opening(prompt, sampling))

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        """Streams n samples; see `strategies.core.contracts.Engine`, and `OpenAIEngine.generate`.

        A sample that another replica continues reports its prompt's tokens a second time: they were computed again.
        """
        turns = self._fleet.turns()
        if self.continues:
            prompt = Prompt(token_ids=await self.encode(prompt))
        part = Part(prompt, sampling, [Branch(index) for index in range(n)])
        failures: list[Chunk] = []
        cause: Exception | None = None
        async with aclosing(self._grow(part, turns)) as chunks:
            async for chunk in chunks:
                if chunk.error is None:
                    yield chunk
                else:
                    failures.append(chunk)
                    cause = cause or chunk.error
        # Failures come last: when all samples fail, the call raises instead, as if it had never begun.
        if cause and len(failures) == n:
            raise cause
        for chunk in failures:
            yield chunk

    async def _grow(self, part: Part, turns: Turns) -> AsyncGenerator[Chunk, None]:
        """Streams the samples of a part to their ends, on as many replicas as that takes."""
        while part.fresh:
            try:
                replica = self._homes.choose(part.prompt, await turns.candidates())
                turns.take(replica, len(part.growing))
                async with aclosing(part.grow(replica)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                if part.cause is None:
                    replica.breaker.succeed()
                    return
                turns.lose(replica, part.cause)
            except APIError as error:
                # A replica has accepted this call before, so the refusal of a sample's rest is no fault of the
                # request: only that sample fails.
                if not (part.is_rest or isinstance(error, LOST)):
                    raise
                for chunk in part.failed(error):
                    yield chunk
                return
        async with aclosing(self._go_on(part, turns)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _go_on(self, part: Part, turns: Turns) -> AsyncGenerator[Chunk, None]:
        """Streams the rests of the samples that a lost replica had begun, each as a call of its own."""
        rests: list[Part] = []
        for branch in part.growing:
            match await self._rest(part, branch):
                case Chunk() as end:
                    yield end
                case rest:
                    rests.append(rest)
        if rests:
            begin = [partial(self._grow, rest, turns.fork()) for rest in rests]
            async with aclosing(merged(begin, len(begin))) as chunks:
                async for _, chunk in chunks:
                    yield chunk

    async def _rest(self, part: Part, branch: Branch) -> Part | Chunk:
        """The call that continues a lost sample, or the sample's last chunk where none can."""
        prompt, sampling = part.origin
        if not branch.grown:
            seed = None if sampling.seed is None else sample_seed(sampling.seed, branch.index)
            return Part(prompt, replace(sampling, seed=seed), [branch], origin=part.origin)
        failed = Chunk(branch.index, finish_reason="error", error=part.cause)
        # `thinks` is true where the upstream tells the text of token ids, which the seam needs.
        if not (self.continues and self.thinks and can_continue(sampling)):
            return failed
        try:
            whole = await spelled(prompt, branch, self.tokenizer.decode)
        except LOST as error:
            return replace(failed, error=error)
        if whole is None:
            return failed
        rest = continued(sampling, branch)
        ids = (*prompt.token_ids, *branch.token_ids)
        if rest.max_tokens == 0 or len(ids) >= (self.max_model_len or 0):
            return Chunk(branch.index, text=whole[len(branch.text) :], finish_reason="length")
        # Up to `min_tokens` a stop string is plain text.
        stops = () if rest.min_tokens else sampling.stop
        seam = Seam(whole, len(branch.text), replace(sampling, stop=stops))
        return Part(Prompt(token_ids=ids), rest, [branch], origin=part.origin, seam=seam)
