"""Asks an upstream, once and with the smallest requests, what it serves and what it can do."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from strategies.answers.think_tags import OPEN
from strategies.core.contracts import TokenIds
from tts_server.engines.openai.logprobs import token_name
from tts_server.engines.openai.values import MISFORMED, usage_in
from tts_server.engines.openai.wire import Abilities
from tts_server.errors import InvalidRequest, UpstreamError
from tts_server.upstream.client import Upstream
from tts_server.upstream.errors import NoSuchPath

Frames = Sequence[Mapping[str, Any]]

GREETING = ({"role": "user", "content": "Say hi."},)
_SHOWN = 20
_TAIL = 8
"""Token ids at a prompt's end in which the opening of a thought has room."""
_OPENED = re.compile(rf"{OPEN}\s*\Z")


class NotServed(UpstreamError):
    """The upstream is up, but has other models."""


@dataclass(frozen=True, slots=True)
class Found:
    """An upstream as it answered at start-up."""

    api: str
    """What `/chat/completions` is appended to."""
    model: str
    """What the upstream calls the model."""
    max_model_len: int | None
    abilities: Abilities
    greeting: TokenIds = ()
    """A short chat as its template and tokenizer render it; empty where it renders none."""

    @property
    def path(self) -> str:
        return self.api + ("/completions" if self.abilities.continues else "/chat/completions")

    def unlike(self, other: "Found") -> str | None:
        """In what it differs from another upstream, as half a sentence; None if requests may go to either."""
        if self.model != other.model:
            return f"serves {other.model!r} and not {self.model!r}"
        if self.max_model_len != other.max_model_len:
            return f"has a context of {other.max_model_len} tokens and not of {self.max_model_len}"
        if self.greeting != other.greeting:
            return "has another chat template or tokenizer"
        theirs = asdict(other.abilities)
        for ability, value in asdict(self.abilities).items():
            if theirs[ability] != value:
                return f"answers otherwise where it was asked for {ability} ({theirs[ability]!r} and not {value!r})"
        return None


async def probe(http: Upstream, model: str | None) -> Found:
    """Finds out what the upstream serves under a model name, or the first one it names, and how.

    Raises:
        APIError: it cannot be reached, refuses the key, does not serve the model or speaks no chat.
    """
    try:
        return await _probed(http, model)
    except MISFORMED as error:
        raise UpstreamError("Its answers are not in OpenAI's format.") from error


async def _probed(http: Upstream, model: str | None) -> Found:
    api, card = await _find_model(http, model)
    asker = _Asker(http, api, card["id"])
    found_len = card.get("max_model_len")
    max_model_len = found_len if isinstance(found_len, int) else None
    rendered = await asker.token_ids()
    if rendered and (abilities := await asker.completions(rendered.ids)):
        told = await ending(http, card["id"], rendered.ids)
        abilities = replace(abilities, detokenizes=told is not None)
        return Found(api, card["id"], rendered.max_model_len, abilities, tuple(rendered.ids))
    return Found(api, card["id"], max_model_len, await asker.chat())


async def ending(http: Upstream, model: str, ids: Sequence[int]) -> str | None:
    """The opening of a thought that a rendered prompt ends with; None where the upstream tells no text of ids."""
    try:
        answer = await http.post("/detokenize", {"model": model, "tokens": list(ids[-_TAIL:])})
    except (InvalidRequest, UpstreamError):
        return None
    match answer:
        case {"prompt": str(text)}:
            found = _OPENED.search(text)
            return found[0] if found else ""
    return None


async def _find_model(http: Upstream, model: str | None) -> tuple[str, Mapping[str, Any]]:
    for api in ("/v1", ""):
        try:
            answer = await http.get(f"{api}/models", retries=0)
        except NoSuchPath:
            continue
        cards = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(cards, list) or not all(isinstance(card, dict) and "id" in card for card in cards):
            raise UpstreamError(f"Its answer to {api}/models is not OpenAI's list of models.")
        for card in cards:
            if model in (None, card["id"]):
                return api, card
        served = [str(card["id"]) for card in cards]
        more = f" and {len(served) - _SHOWN} more" if len(served) > _SHOWN else ""
        raise NotServed(f"It does not serve {model!r}; it serves: {', '.join(served[:_SHOWN]) or 'nothing'}{more}.")
    raise UpstreamError("It has neither /v1/models nor /models; is the base URL right?")


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A chat as the upstream's tokenizer renders it."""

    ids: list[int]
    max_model_len: int


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks one upstream about one of its models."""

    http: Upstream
    api: str
    model: str

    async def token_ids(self) -> _Rendered | None:
        """A short chat as token ids, if the upstream renders chats."""
        try:
            answer = await self.http.post("/tokenize", {"model": self.model, "messages": GREETING})
        except (InvalidRequest, UpstreamError):
            return None
        match answer:
            case {"tokens": [int(), *_] as ids, "max_model_len": int() as max_model_len}:
                return _Rendered(ids, max_model_len)
        return None

    async def completions(self, ids: list[int]) -> Abilities | None:
        """What `/completions` can do with token ids; None if it does not tell those it generates."""
        path = f"{self.api}/completions"
        body = {"prompt": ids, "max_tokens": 1, "return_token_ids": True}
        if not _some_choice(await self._try(path, body), lambda choice: bool(choice.get("token_ids"))):
            return None
        wanted = {"logprobs": 1, "logprob_token_ids": ids[:1], "return_tokens_as_token_ids": True}
        named, echoed = await asyncio.gather(
            self._try(path, body | wanted), self._try(path, body | {"logprobs": 1, "echo": True})
        )
        return replace(
            await self._extras(path, body, {"logprobs": 1}),
            continues=True,
            token_logprobs=_some_choice(named, lambda choice: _names(choice, ids[0])),
            echoes=_echoes(_choices(echoed), len(ids)),
        )

    async def chat(self) -> Abilities:
        """What `/chat/completions` can do.

        Raises:
            APIError: it does not even take a greeting.
        """
        path = f"{self.api}/chat/completions"
        field, body = await self._chat_body(path)
        return replace(await self._extras(path, body, {"logprobs": True, "top_logprobs": 1}), limit_field=field)

    async def _chat_body(self, path: str) -> tuple[Literal["max_tokens", "max_completion_tokens"], dict[str, Any]]:
        """The smallest body it takes: some models only know one name of the token limit."""
        body: dict[str, Any] = {"messages": GREETING}
        try:
            await self._ask(path, body | {"max_tokens": 16})
        except InvalidRequest:
            await self._ask(path, body | {"max_completion_tokens": 16})
            return "max_completion_tokens", body | {"max_completion_tokens": 16}
        return "max_tokens", body | {"max_tokens": 16}

    async def _extras(self, path: str, body: Mapping[str, Any], logprobs: Mapping[str, Any]) -> Abilities:
        """Which additions to a body that works work too."""
        usage = {"include_usage": True}
        tried = await asyncio.gather(
            self._try(path, {**body, "n": 2}),
            self._try(path, {**body, "stream_options": usage}),
            self._try(path, {**body, "stream_options": usage | {"continuous_usage_stats": True}}),
            self._try(path, {**body, **logprobs}),
        )
        two, end, continuous, told = tried
        grown = [frame for frame in continuous if frame.get("choices")]
        return Abilities(
            samples={choice.get("index") for choice in _choices(two)} == {0, 1},
            usage=any(map(usage_in, end)),
            continuous_usage=bool(grown) and all(frame.get("usage") for frame in grown),
            logprobs=_some_choice(told, _tells_logprobs),
        )

    async def _try(self, path: str, body: Mapping[str, Any]) -> Frames:
        """The frames that answer a body; none if the upstream refuses or fails."""
        try:
            return await self._ask(path, body)
        except (InvalidRequest, UpstreamError):
            return ()

    async def _ask(self, path: str, body: Mapping[str, Any]) -> Frames:
        async with aclosing(self.http.events(path, {**body, "model": self.model, "stream": True})) as frames:
            return [frame async for frame in frames]


def _choices(frames: Frames) -> list[Mapping[str, Any]]:
    choices = [choice for frame in frames for choice in frame.get("choices") or ()]
    return [choice for choice in choices if isinstance(choice, dict)]


def _some_choice(frames: Frames, shows: Callable[[Mapping[str, Any]], bool]) -> bool:
    return any(map(shows, _choices(frames)))


def _tells_logprobs(choice: Mapping[str, Any]) -> bool:
    """Whether a choice has logprobs in one of OpenAI's two forms."""
    logprobs = choice.get("logprobs") or {}
    return "top_logprobs" in logprobs or bool(logprobs.get("content") or logprobs.get("refusal"))


def _names(choice: Mapping[str, Any], token_id: int) -> bool:
    """Whether a choice tells the logprob of this token."""
    tops = (choice.get("logprobs") or {}).get("top_logprobs") or ()
    return any(token_name(token_id) in (top or {}) for top in tops)


def _echoes(choices: Sequence[Mapping[str, Any]], prompt_tokens: int) -> bool:
    """Whether choices tell the prompt's logprobs, and leave the prompt out of a text that goes with token ids."""
    told = [token for choice in choices for token in (choice.get("logprobs") or {}).get("tokens") or ()]
    said = sum(len(choice.get("token_ids") or ()) for choice in choices)
    text = "".join(choice.get("text") or "" for choice in choices)
    return len(told) == prompt_tokens + said and len(text) < len("".join(map(str, told)))
