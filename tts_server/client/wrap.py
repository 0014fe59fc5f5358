"""For those who stay with `openai`: its client with a `tts=` keyword, and with typed `tts` on what comes back.

The package is not imported here: whoever has a client of it has it already.
"""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, overload

from tts_server.client.options import Options, tts_fields
from tts_server.client.results import Search

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    class Completion(ChatCompletion):
        """OpenAI's, with what the search says of itself."""

        tts: Search | None

    class CompletionChunk(ChatCompletionChunk):
        """OpenAI's; the chunk that ends the answer says what the search says of itself."""

        tts: Search | None


T = TypeVar("T")


@overload
def wrap(client: "OpenAI") -> "WrappedOpenAI": ...
@overload
def wrap(client: "AsyncOpenAI") -> "WrappedAsyncOpenAI": ...
def wrap(client: Any) -> "WrappedOpenAI | WrappedAsyncOpenAI":
    """An `openai` client whose `chat.completions` takes `tts=`; all else is the client's own.

    >>> client = wrap(openai.OpenAI(base_url=f"{base_url}/v1", api_key="-"))
    >>> question = [{"role": "user", "content": "What is 2 + 2?"}]
    >>> completion = client.chat.completions.create(model="fake", messages=question, tts=TTS("best_of_n", n=4))
    >>> completion.tts.strategy, completion.tts.samples
    ('best_of_n', 4)

    Raises:
        TypeError: this is no client of `openai`.
    """
    if isinstance(client, _Proxy) or not hasattr(client, "chat"):
        raise TypeError(f"wrap takes an openai.OpenAI or openai.AsyncOpenAI, not a {type(client).__name__}")
    return WrappedAsyncOpenAI(client) if hasattr(client, "__aenter__") else WrappedOpenAI(client)


class _Proxy:
    """Everything that is not said here is the wrapped object's."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __enter__(self) -> Self:
        self._wrapped.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._wrapped.__exit__(*error)

    async def __aenter__(self) -> Self:
        await self._wrapped.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._wrapped.__aexit__(*error)


class Chunks(_Proxy, Generic[T]):
    """A stream of `openai`, whose chunks have a typed `tts`."""

    def __iter__(self) -> Iterator[T]:
        for chunk in self._wrapped:
            yield _typed(chunk)

    async def __aiter__(self) -> AsyncIterator[T]:
        async for chunk in self._wrapped:
            yield _typed(chunk)


class _Streams(_Proxy):
    def stream(self, *, tts: Options | None = None, **fields: Any) -> Any:
        """OpenAI's, with `tts`."""
        return self._wrapped.stream(**_with_tts(tts, fields))


class _Completions(_Streams):
    @overload
    def create(
        self, *, stream: Literal[True], tts: Options | None = None, **fields: Any
    ) -> "Chunks[CompletionChunk]": ...
    @overload
    def create(
        self, *, stream: Literal[False] | None = None, tts: Options | None = None, **fields: Any
    ) -> "Completion": ...
    def create(self, *, tts: Options | None = None, **fields: Any) -> Any:
        """OpenAI's, with `tts`."""
        answer = self._wrapped.create(**_with_tts(tts, fields))
        return Chunks(answer) if fields.get("stream") else _typed(answer)

    def parse(self, *, tts: Options | None = None, **fields: Any) -> Any:
        """OpenAI's, with `tts`."""
        return _typed(self._wrapped.parse(**_with_tts(tts, fields)))


class _AsyncCompletions(_Streams):
    @overload
    async def create(
        self, *, stream: Literal[True], tts: Options | None = None, **fields: Any
    ) -> "Chunks[CompletionChunk]": ...
    @overload
    async def create(
        self, *, stream: Literal[False] | None = None, tts: Options | None = None, **fields: Any
    ) -> "Completion": ...
    async def create(self, *, tts: Options | None = None, **fields: Any) -> Any:
        """OpenAI's, with `tts`."""
        answer = await self._wrapped.create(**_with_tts(tts, fields))
        return Chunks(answer) if fields.get("stream") else _typed(answer)

    async def parse(self, *, tts: Options | None = None, **fields: Any) -> Any:
        """OpenAI's, with `tts`."""
        return _typed(await self._wrapped.parse(**_with_tts(tts, fields)))


class _Chat(_Proxy):
    @property
    def completions(self) -> _Completions:
        return _Completions(self._wrapped.completions)


class _AsyncChat(_Proxy):
    @property
    def completions(self) -> _AsyncCompletions:
        return _AsyncCompletions(self._wrapped.completions)


class WrappedOpenAI(_Proxy):
    """An `openai.OpenAI`."""

    @property
    def chat(self) -> _Chat:
        return _Chat(self._wrapped.chat)


class WrappedAsyncOpenAI(_Proxy):
    """An `openai.AsyncOpenAI`."""

    @property
    def chat(self) -> _AsyncChat:
        return _AsyncChat(self._wrapped.chat)


def _with_tts(tts: Options | None, fields: dict[str, Any]) -> dict[str, Any]:
    if tts is None:
        return fields
    return fields | {"extra_body": {**(fields.get("extra_body") or {}), "tts": tts_fields(tts)}}


def _typed(answer: Any) -> Any:
    """Types what `openai` keeps as an unknown field; every answer has the attribute."""
    told = getattr(answer, "tts", None)
    answer.tts = told and Search.model_validate(told)
    return answer
