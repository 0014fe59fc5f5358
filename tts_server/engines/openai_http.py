"""Any OpenAI-compatible upstream: `vllm serve`, SGLang, a hosted API.

What the upstream can do is found by asking it once, at start-up; what it cannot do is refused with a sentence. One that
renders chats to token ids, and takes and gives token ids, is spoken to as vLLM; every other one gets plain chat.

Special tokens that a client spells in a message are encoded by the upstream's own template and tokenizer: over HTTP
they cannot be told apart from the template's. Where that matters, run the engine in process.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from strategies.core.contracts import Chunk, Prompt, Refused, Sampling, TokenIds
from tts_server.engines.openai.parallel import in_parallel, sample_seed
from tts_server.engines.openai.probe import GREETING, Found, ending, probe
from tts_server.engines.openai.tokenizer import UpstreamTokenizer
from tts_server.engines.openai.values import ids_in
from tts_server.engines.openai.wire import Samples, chat_fields, completion_fields, tokenize_body
from tts_server.errors import APIError, ContextTooLong, EngineUnavailable, InvalidRequest, UpstreamError
from tts_server.upstream.client import Upstream

log = logging.getLogger(__name__)

_KNOWN_TEMPLATES = 256


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of `generate`, ready to be sent as one request or several."""

    found: Found
    fields: Mapping[str, Any]
    sampling: Sampling
    prompt_tokens: int
    """0 where only the upstream knows them."""


class OpenAIEngine:
    """An upstream that speaks OpenAI's API.

    Args:
        base_url: of the upstream, with or without `/v1`.
        name: what clients call the model; the upstream's name for it if not given.
        upstream_model: what the upstream calls it; the first one it serves if not given.
        api_key: goes to `base_url` and nowhere else.
        connect_timeout_s: for one attempt to connect.
        read_timeout_s: between two pieces of an answer.
        start_timeout_s: for all that is asked at start-up.
        retries: how often a request is sent again that found no answer, or a status that invites to come back.
        backoff_s: before the first retry, where the upstream names no time; doubles with each.
        check_s: between two looks at an upstream that could not be reached.

    Raises:
        ValueError: `base_url` is not an http or https URL.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str | None = None,
        upstream_model: str | None = None,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 600.0,
        start_timeout_s: float = 60.0,
        retries: int = 2,
        backoff_s: float = 0.5,
        check_s: float = 5.0,
    ) -> None:
        self.model = name or upstream_model or ""
        self.max_model_len: int | None = None
        self.continues = False
        self.constrains = True
        self._openings: dict[str, str] = {}
        self._knows_developers: bool | None = None
        """Whether the upstream's template shows turns of that role; None until it was asked."""
        self._http = Upstream(
            base_url.rstrip("/").removesuffix("/v1"),
            api_key=api_key,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            retries=retries,
            backoff_s=backoff_s,
        )
        self._upstream_model = upstream_model
        self._start_timeout_s = start_timeout_s
        self._check_s = check_s
        self._found: Found | None = None
        self._health: str | None = None
        """The path that tells how the upstream is, once it has."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The one there is, for whoever counts."""
        return (self._http,)

    @property
    def healthy(self) -> bool:
        """False before the start, after the end, and from a failure to connect until the next answer."""
        return self._found is not None and self._http.healthy

    @property
    def calls_itself(self) -> bool:
        return not self.continues

    @property
    def tool_format(self) -> str | None:
        # Token ids come as the model said them, and nothing tells how it was taught to call.
        return None if self.continues else "hermes"

    @property
    def thinks(self) -> bool:
        return self._found is not None and self._found.abilities.detokenizes

    @property
    def tokenizer(self) -> UpstreamTokenizer:
        found = self._ready()
        if not found.abilities.continues:
            raise Refused("The upstream speaks plain chat: it takes no texts and gives no token ids.", "prompt")
        return UpstreamTokenizer(self._http, found.model)

    async def start(self) -> None:
        """Finds out what the upstream can do.

        Raises:
            UpstreamError: it cannot be reached, refuses the key, does not serve the model or speaks no chat.
        """
        try:
            self.adopt(await self.look())
        except APIError as error:
            await self._http.close()
            raise UpstreamError(f"Upstream {self._http.origin}: {error.message}") from error
        self._watch = asyncio.create_task(self._look_after())

    async def look(self) -> Found:
        """What the upstream serves and can do now.

        Raises:
            APIError: as for `start`.
        """
        try:
            async with asyncio.timeout(self._start_timeout_s):
                return await probe(self._http, self._upstream_model)
        except TimeoutError:
            raise UpstreamError(f"It did not answer within {self._start_timeout_s:g} s.") from None

    def adopt(self, found: Found) -> None:
        """Serves what was found."""
        self.model = self.model or found.model
        self.max_model_len = found.max_model_len
        self.continues = found.abilities.continues
        self._found = found
        log.info("upstream %s serves %s: %s", self._http.origin, found.model, found.abilities)

    async def close(self) -> None:
        """Cuts every connection; calls under way fail."""
        self._found = None
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._http.close()

    async def encode(self, prompt: Prompt) -> TokenIds:
        """The prompt's token ids, from the upstream's own tokenizer and template.

        Raises:
            Refused: the upstream speaks plain chat.
            APIError: it refused or failed.
        """
        found = self._ready()
        if not found.abilities.continues:
            raise Refused("The upstream speaks plain chat: it gives no token ids.", "tts.strategy")
        if prompt.token_ids:
            return prompt.token_ids
        ids = await self._tokenized(found, await self._with_known_roles(found, prompt))
        if not ids:
            raise UpstreamError("The upstream's answer to /tokenize holds no token ids.")
        return ids

    async def _tokenized(self, found: Found, prompt: Prompt) -> TokenIds:
        return ids_in(await self._http.post("/tokenize", tokenize_body(found.model, prompt)))

    async def _with_known_roles(self, found: Found, prompt: Prompt) -> Prompt:
        """The prompt with `developer` turns as `system` turns where the upstream's template refuses or drops them."""
        if all(message["role"] != "developer" for message in prompt.messages):
            return prompt
        if self._knows_developers is None:
            turn = {"role": "developer", "content": "Say hi."}
            try:
                seen = await self._tokenized(found, Prompt((turn, *GREETING)))
            except InvalidRequest:
                seen = ()
            self._knows_developers = len(seen) > len(found.greeting)
        if self._knows_developers:
            return prompt
        roles = {"developer": "system"}
        turns = tuple({**message, "role": roles.get(message["role"], message["role"])} for message in prompt.messages)
        return replace(prompt, messages=turns)

    async def opening(self, prompt: Prompt, sampling: Sampling) -> str:
        """What the upstream's template ends with, asked once for each set of its variables."""
        found = self._ready()
        # Where a constraint is kept from the first token on, nothing closes a thought; `vllm serve` does not tell.
        if not found.abilities.detokenizes or sampling.structured or prompt.template.get("continue_final_message"):
            return ""
        template = {name: value for name, value in prompt.template.items() if name != "tools"}
        key = json.dumps(template, sort_keys=True)
        if key not in self._openings:
            if len(self._openings) >= _KNOWN_TEMPLATES:
                self._openings.clear()
            ids = await self.encode(Prompt(GREETING, template=template))
            self._openings[key] = await ending(self._http, found.model, ids) or ""
        return self._openings[key]

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        """Streams n samples; see `strategies.core.contracts.Engine`.

        Where the upstream does not tell token ids or usage while it streams, a call that is cut short counts a token a
        piece of text.

        Raises:
            Refused: the upstream cannot honour a field.
            ContextTooLong: the prompt leaves no room for an answer.
            APIError: the upstream failed before any sample was finished.
        """
        call = await self._call(prompt, sampling)
        # One sample a request also where there is a seed: n samples of one seeded request need not repeat.
        alone = n == 1 or (call.found.abilities.samples and sampling.seed is None)
        chunks = self._request(call, n) if alone else in_parallel([self._request(call, 1, i) for i in range(n)])
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def _call(self, prompt: Prompt, sampling: Sampling) -> _Call:
        found = self._ready()
        if not found.abilities.continues:
            fields = chat_fields(prompt, sampling, found.abilities)
            return _Call(found, {"model": found.model, **fields}, sampling, 0)
        # A chat, too, is sent as token ids, though that costs a round trip: the upstream's own chat endpoint may parse
        # the answer (reasoning, tool calls), and its text would then not be that of the tokens.
        ids = await self.encode(prompt)
        if found.max_model_len is None or len(ids) >= found.max_model_len:
            raise ContextTooLong(len(ids), found.max_model_len or 0)
        fields = completion_fields(sampling, found.abilities, found.max_model_len - len(ids))
        return _Call(found, {"model": found.model, "prompt": ids, **fields}, sampling, len(ids))

    async def _request(self, call: _Call, n: int, index: int = 0) -> AsyncGenerator[Chunk, None]:
        """Streams the samples of one request, of which `index` is the first."""
        body: dict[str, Any] = {**call.fields} if n == 1 else {**call.fields, "n": n}
        if call.sampling.seed is not None:
            body["seed"] = sample_seed(call.sampling.seed, index)
        samples = Samples(call.found.abilities, n, index, call.prompt_tokens, call.sampling)
        try:
            async with aclosing(self._http.events(call.found.path, body)) as frames:
                async for frame in frames:
                    for chunk in samples.read(frame):
                        yield chunk
            samples.check_ended()
        except APIError as error:
            for chunk in samples.fail(error):
                yield chunk
        if last := samples.last():
            yield last

    async def check(self) -> None:
        """Asks how the upstream is.

        Raises:
            APIError: it is not well, or does not answer.
        """
        if self._health is None:
            self._health = await self._find_health()
        else:
            await self._http.text(self._health)

    async def _find_health(self) -> str:
        models = f"{self._ready().api}/models"
        try:
            await self._http.text("/health")
        except APIError:
            await self._http.text(models)
            return models
        return "/health"

    def _ready(self) -> Found:
        if self._found is None:
            raise EngineUnavailable("The engine is not started, or closed.")
        return self._found

    async def _look_after(self) -> None:
        """Notices when an upstream that was gone is back, and closes connections that are not needed."""
        found = self._ready()
        while True:
            await asyncio.sleep(self._check_s)
            await self._http.trim()
            if not self._http.healthy:
                try:
                    await self._http.get(f"{found.api}/models", retries=0)
                except APIError as error:
                    log.warning("upstream %s: %s", self._http.origin, error.message)
