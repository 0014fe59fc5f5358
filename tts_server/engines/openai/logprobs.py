"""Logprobs as OpenAI's two endpoints tell them, and the names that vLLM gives tokens in them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from strategies.core.contracts import Sampling, TokenIds, TokenLogprob
from tts_server.engines.openai.values import logprob_in, text_in

_ID_PREFIX = "token_id:"

Logprobs = tuple[TokenLogprob, ...]


class Told(NamedTuple):
    """What one frame tells of a choice's tokens."""

    prompt: Logprobs
    """Of the prompt's tokens but the first."""
    sampled: Logprobs


def read_logprobs(logprobs: Mapping[str, Any], token_ids: TokenIds, sampling: Sampling) -> Told:
    """A choice's `logprobs`, of a chat or of a text.

    Args:
        logprobs: as the upstream wrote them; empty where it wrote none.
        token_ids: of the sampled tokens, where it tells them.
        sampling: what was asked for.
    """
    if not logprobs:
        return Told((), ())
    if "content" in logprobs or "refusal" in logprobs:
        told = [*(logprobs.get("content") or ()), *(logprobs.get("refusal") or ())]
        return Told((), tuple(map(_chat_logprob, told)))
    entries = list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True))
    prompt: Logprobs = ()
    if sampling.prompt_logprobs is not None:
        # With an echo the prompt's tokens stand before the sampled ones, the first of them without a logprob.
        sampled = len(entries) - len(token_ids)
        echoed, entries = entries[1:sampled], entries[sampled:]
        prompt = tuple(_logprob(t, value, top=_likeliest(top, sampling.prompt_logprobs)) for t, value, top in echoed)
        if sampling.logprobs is None:
            return Told(prompt, ())
    named = zip(entries, token_ids, strict=True)
    return Told(prompt, tuple(_logprob(t, value, i, _top(top, sampling)) for (t, value, top), i in named))


def _top(top: Mapping[str, float] | None, sampling: Sampling) -> Logprobs:
    if asked := sampling.logprob_token_ids:
        named = top or {}
        return tuple(_logprob(name, named[name], token) for token in asked if (name := token_name(token)) in named)
    return _likeliest(top, sampling.logprobs)


def _likeliest(top: Mapping[str, float] | None, k: int | None) -> Logprobs:
    # vLLM adds the token itself to the likeliest ones.
    ranked = sorted((top or {}).items(), key=lambda rival: -rival[1])
    return tuple(_logprob(token, value) for token, value in ranked[:k])


def token_name(token_id: int) -> str:
    """How vLLM names a token in logprobs when it is asked for ids in place of text."""
    return f"{_ID_PREFIX}{token_id}"


def _chat_logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    top = tuple(_logprob(rival["token"], rival["logprob"]) for rival in entry.get("top_logprobs") or ())
    return _logprob(entry["token"], entry["logprob"], top=top)


def _logprob(token: Any, value: Any, token_id: int | None = None, top: Logprobs = ()) -> TokenLogprob:
    return TokenLogprob(text_in(token), logprob_in(value), token_id, top)
