"""The tokenizer of an upstream that speaks as vLLM does, asked over HTTP."""

from collections.abc import Mapping
from typing import Any

from strategies.core.contracts import Refused, TokenIds
from tts_server.errors import NotFound, UpstreamError
from tts_server.upstream.client import Upstream
from tts_server.upstream.errors import NoSuchPath


class UpstreamTokenizer:
    """Asks `/tokenize`, `/detokenize` and `/tokenizer_info`.

    Args:
        http: the upstream.
        model: what it calls the model.
    """

    def __init__(self, http: Upstream, model: str) -> None:
        self._http = http
        self._model = model

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
        body = {"model": self._model, "prompt": text, "add_special_tokens": add_special_tokens}
        match await self._http.post("/tokenize", body):
            case {"tokens": list(ids)} if all(isinstance(token, int) for token in ids):
                return tuple(ids)
        raise UpstreamError("The upstream's answer to /tokenize holds no token ids.")

    async def decode(self, token_ids: TokenIds) -> str:
        if not token_ids:
            return ""
        try:
            answer = await self._http.post("/detokenize", {"model": self._model, "tokens": list(token_ids)})
        except NoSuchPath:
            raise Refused("The upstream tells no text of token ids.", "tokens") from None
        match answer:
            case {"prompt": str(text)}:
                return text
        raise UpstreamError("The upstream's answer to /detokenize holds no text.")

    async def spell(self, token_ids: TokenIds) -> list[str]:
        raise Refused("The upstream does not tell how its vocabulary writes tokens.", "return_token_strs")

    async def describe(self) -> Mapping[str, Any]:
        try:
            answer = await self._http.get("/tokenizer_info")
        except NoSuchPath:
            raise NotFound("The upstream does not describe its tokenizer.") from None
        if not isinstance(answer, dict):
            raise UpstreamError("The upstream's answer to /tokenizer_info is no object.")
        return answer
