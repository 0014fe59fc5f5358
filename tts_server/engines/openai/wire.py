"""OpenAI's wire format both ways: sampling to request fields, stream frames to chunks. Pure; knows no HTTP."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from strategies.core.contracts import Chunk, FinishReason, Prompt, Refused, Sampling
from tts_server.engines.openai.logprobs import read_logprobs
from tts_server.engines.openai.text import ChatText
from tts_server.engines.openai.values import MISFORMED, Usage, number_in, text_in, usage_in
from tts_server.errors import APIError, UpstreamError
from tts_server.upstream.client import DONE

_SHARED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed")
_EXTRAS: Mapping[str, tuple[Any, ...]] = {
    "top_k": (None, -1, 0),
    "min_p": (None, 0),
    "repetition_penalty": (None, 1),
    "min_tokens": (None, 0),
    "ignore_eos": (False,),
    "stop_token_ids": ((),),
    "include_stop": (False,),
    "logprob_token_ids": ((),),
    "bad_words": ((),),
    "allowed_token_ids": ((),),
    "cache_salt": (None,),
}
"""vLLM's additions to OpenAI's fields, each with the values that ask for nothing."""
_WIRE_NAMES = {"include_stop": "include_stop_str_in_output"}
_RESPONSE_FORMATS = ("text", "json_schema", "json_object")
_PLAIN_TEMPLATE = {"add_generation_prompt": True, "continue_final_message": False}
_ENDLESS = ("", "null", "none", "finish_reason_unspecified")
"""What some servers say where nothing has ended."""
_FAILED = ("abort", "error", "cancelled", "insufficient_system_resource", "malformed_function_call", "network_error")
_CUT = ("length", "max_length", "max_tokens", "model_context_window_exceeded", "model_length", "token_limit")
_FILTERED = (
    "blocklist",
    "content_filter",
    "content_filtered",
    "guardrail_intervened",
    "prohibited_content",
    "recitation",
    "refusal",
    "safety",
    "sensitive",
    "spii",
)
_OPENINGS = ({"role": "assistant", "content": ""}, {"role": "assistant"})
"""What most upstreams begin each sample of a chat with; it says nothing."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an upstream has shown that it can do."""

    continues: bool = False
    """Takes and gives token ids, as vLLM does; otherwise plain chat."""
    samples: bool = False
    """Several samples in one request."""
    usage: bool = False
    """Tells the tokens at a stream's end."""
    continuous_usage: bool = False
    """Tells the tokens with every piece."""
    detokenizes: bool = False
    """Tells the text of token ids, and so how its template ends."""
    logprobs: bool = False
    token_logprobs: bool = False
    """Tells the logprobs of tokens that are named by id."""
    echoes: bool = False
    """Tells the logprobs of the prompt's tokens before those of the first sampled one."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    @property
    def stream_options(self) -> dict[str, bool] | None:
        if not self.usage:
            return None
        # Token ids tell as much as continuous usage.
        often = self.continuous_usage and not self.continues
        return {"include_usage": True} | ({"continuous_usage_stats": True} if often else {})


def tokenize_body(model: str, prompt: Prompt) -> dict[str, Any]:
    """A chat as vLLM's `/tokenize` takes it."""
    template = dict(prompt.template)
    continued = template.pop("continue_final_message", False)
    tools = {"tools": template.pop("tools")} if "tools" in template else {}
    return {
        "model": model,
        "messages": prompt.messages,
        "add_generation_prompt": template.pop("add_generation_prompt", not continued),
        "continue_final_message": continued,
        "chat_template_kwargs": template,
        **tools,
    }


def completion_fields(sampling: Sampling, abilities: Abilities, room: int) -> dict[str, Any]:
    """A sampling as vLLM's `/v1/completions` takes it, for at most `room` tokens.

    Raises:
        Refused: the upstream does not tell logprobs.
    """
    fields = _shared_fields(sampling, abilities)
    # Without a limit this endpoint stops after 16 tokens.
    fields["max_tokens"] = room if sampling.max_tokens is None else min(sampling.max_tokens, room)
    fields["return_token_ids"] = True
    asked = (name for name, neutral in _EXTRAS.items() if getattr(sampling, name) not in neutral)
    fields |= {name: getattr(sampling, name) for name in asked}
    fields = {_WIRE_NAMES.get(name, name): value for name, value in fields.items()}
    if sampling.logprobs is not None:
        _require(abilities.logprobs, "logprobs")
        fields["logprobs"] = sampling.logprobs
    if sampling.prompt_logprobs is not None:
        _require(abilities.echoes, "echo")
        fields |= {"echo": True, "logprobs": max(sampling.prompt_logprobs, sampling.logprobs or 0)}
    if sampling.logprob_token_ids:
        _require(abilities.token_logprobs, "logprob_token_ids")
        _require(sampling.prompt_logprobs is None, "echo")
        fields |= {"logprobs": len(sampling.logprob_token_ids), "return_tokens_as_token_ids": True}
    return fields


def chat_fields(prompt: Prompt, sampling: Sampling, abilities: Abilities) -> dict[str, Any]:
    """A prompt and a sampling as any `/v1/chat/completions` takes them.

    Raises:
        Refused: they hold what plain chat has no field for.
    """
    if prompt.token_ids:
        raise Refused(
            "The upstream speaks plain chat: it continues no token ids, as step search needs.", "tts.strategy"
        )
    for name, value in prompt.template.items():
        known = name == "tools" or (name in _PLAIN_TEMPLATE and value == _PLAIN_TEMPLATE[name])
        _require(known, name if name in _PLAIN_TEMPLATE else "chat_template_kwargs")
    for name, neutral in _EXTRAS.items():
        _require(getattr(sampling, name) in neutral, _WIRE_NAMES.get(name, name))
    _require(sampling.structured is None or sampling.structured["type"] in _RESPONSE_FORMATS, "structured_outputs")
    _require(sampling.prompt_logprobs is None, "echo")
    fields = _shared_fields(sampling, abilities) | {"messages": prompt.messages} | dict(sampling.calling or {})
    if sampling.max_tokens is not None:
        fields[abilities.limit_field] = sampling.max_tokens
    if sampling.logprobs is not None:
        _require(abilities.logprobs, "logprobs")
        fields |= {"logprobs": True} | ({"top_logprobs": sampling.logprobs} if sampling.logprobs else {})
    return fields


def _shared_fields(sampling: Sampling, abilities: Abilities) -> dict[str, Any]:
    fields: dict[str, Any] = {"stream": True}
    for name in _SHARED:
        if (value := getattr(sampling, name)) is not None:
            fields[name] = value
    if sampling.stop:
        fields["stop"] = sampling.stop
    if structured := sampling.structured:
        kind = structured["type"]
        if kind in _RESPONSE_FORMATS:
            fields["response_format"] = structured
        else:
            tag = {"structural_tag": json.dumps(structured)}
            fields["structured_outputs"] = tag if kind == "structural_tag" else {kind: structured[kind]}
    if options := abilities.stream_options:
        fields["stream_options"] = options
    return fields


def _require(able: bool, field: str) -> None:
    if not able:
        raise Refused(f"The upstream cannot honour {field!r}.", field)


class Samples:
    """The samples of one request, as its frames tell them.

    The last sample's last chunk is held back until the stream's end, because the usage comes after it. Where the
    upstream tells neither token ids nor usage while it streams, a piece counts as one token, and the held chunk carries
    the difference to the usage, which is negative where the upstream sent more pieces than tokens.

    Args:
        abilities: of the upstream.
        n: samples in this request.
        first: index of the first of them in the engine's call.
        prompt_tokens: if they are known; otherwise taken from the usage, which tells them once a request or, where it
            is continuous, once a sample.
        sampling: what was asked for.
    """

    def __init__(self, abilities: Abilities, n: int, first: int, prompt_tokens: int, sampling: Sampling) -> None:
        self._held: Chunk | None = None
        self._counts_ids = abilities.continues
        self._continuous = abilities.continuous_usage and not abilities.continues
        self._n = n
        self._first = first
        self._prompt_tokens = prompt_tokens
        self._sampling = sampling
        asked = sampling.logprobs, sampling.prompt_logprobs
        self._reads_logprobs = bool(sampling.logprob_token_ids) or asked != (None, None)
        self._growing = set(range(n))
        self._begun: set[int] = set()
        """Those that have said anything."""
        self._unpaid = set(range(n))
        """Samples whose prompt is not counted yet."""
        self._counted = [0] * n
        self._texts = [ChatText() for _ in range(n)]
        self._usage = Usage()

    def read(self, frame: Mapping[str, Any]) -> Iterator[Chunk]:
        """What a frame adds.

        Raises:
            UpstreamError: it is not OpenAI's format, or tells of a failure.
        """
        try:
            yield from self._read(frame)
        except MISFORMED as error:
            raise UpstreamError("The upstream's stream is not in OpenAI's format.") from error

    def check_ended(self) -> None:
        """Raises UpstreamError if the stream's end comes too early."""
        if self._growing:
            raise UpstreamError("The upstream ended its stream before it had finished.")

    def fail(self, error: APIError) -> list[Chunk]:
        """The ends of the samples that a failure of the stream cut off; raises it again if it is all of them."""
        if len(self._growing) == self._n:
            raise error
        return [Chunk(self._first + i, finish_reason="error", error=error) for i in sorted(self._growing)]

    def last(self) -> Chunk | None:
        """The chunk that was held back, with what the usage told."""
        if self._held is None:
            return None
        usage = self._usage
        missing = 0 if usage.completion is None else usage.completion - sum(self._counted)
        prompt_tokens = usage.prompt if len(self._unpaid) == self._n else 0
        return replace(
            self._held,
            completion_tokens=self._held.completion_tokens + missing,
            prompt_tokens=self._held.prompt_tokens or prompt_tokens,
            cached_tokens=usage.cached,
        )

    def _read(self, frame: Mapping[str, Any]) -> Iterator[Chunk]:
        choices: Sequence[Mapping[str, Any]] = frame.get("choices") or ()
        if frame is DONE:
            # Some servers never say why a sample ended, only that all is said.
            choices = [{"index": index, "finish_reason": "stop"} for index in sorted(self._growing & self._begun)]
        usage = usage_in(frame)
        if usage and not (choices and self._continuous):
            self._usage = usage
        for choice in choices:
            index = 0 if self._n == 1 and choice.get("index") is None else choice["index"]
            if choice.get("delta") in _OPENINGS and not choice.get("finish_reason"):
                continue
            if index in self._growing:
                yield from self._advance(index, choice, usage if self._continuous else None)
            elif self._held and self._held.index == self._first + index:
                self._held = _joined(self._held, self._grow(index, choice, usage if self._continuous else None))

    def _advance(self, index: int, choice: Mapping[str, Any], usage: Usage | None) -> Iterator[Chunk]:
        chunk = self._grow(index, choice, usage)
        if not (chunk.text or chunk.refusal or chunk.completion_tokens or chunk.finish_reason or chunk.prompt_logprobs):
            return
        self._begun.add(index)
        if chunk.finish_reason:
            self._growing.discard(index)
            if not self._growing:
                self._held = chunk
                return
        yield chunk

    def _grow(self, index: int, choice: Mapping[str, Any], usage: Usage | None) -> Chunk:
        finish, stop = _finish(choice)
        delta = choice.get("delta")
        if delta is None and index not in self._begun:
            # An answer that is not streamed after all. Behind deltas it would repeat them.
            delta = choice.get("message")
        delta = delta or {}
        text, refusal = text_in(choice.get("text")), text_in(delta.get("refusal"))
        text += self._texts[index].grow(delta, ended=finish is not None)
        ids = choice.get("token_ids")
        token_ids = tuple(map(number_in, ids)) if ids else ()
        if self._counts_ids:
            tokens = len(token_ids)
        elif usage:
            tokens = max(0, (usage.completion or 0) - self._counted[index])
        else:
            tokens = int(bool(text or refusal))
        self._counted[index] += tokens
        prompt_tokens = 0
        if (
            index in self._unpaid
            and (tokens or finish)
            and (known := self._prompt_tokens or (usage.prompt if usage else 0))
        ):
            self._unpaid.discard(index)
            prompt_tokens = known
        logprobs = choice.get("logprobs") if self._reads_logprobs else None
        before, told = read_logprobs(logprobs, token_ids, self._sampling) if logprobs else ((), ())
        return Chunk(
            self._first + index,
            text=text,
            refusal=refusal,
            token_ids=token_ids,
            completion_tokens=tokens,
            logprobs=told,
            prompt_logprobs=before,
            prompt_tokens=prompt_tokens,
            finish_reason=finish,
            stop=stop,
        )


def _joined(end: Chunk, late: Chunk) -> Chunk:
    """A sample's end with what came behind it."""
    return replace(
        end,
        text=end.text + late.text,
        refusal=end.refusal + late.refusal,
        token_ids=end.token_ids + late.token_ids,
        completion_tokens=end.completion_tokens + late.completion_tokens,
        logprobs=end.logprobs + late.logprobs,
        prompt_tokens=end.prompt_tokens + late.prompt_tokens,
        finish_reason=late.finish_reason or end.finish_reason,
    )


def _finish(choice: Mapping[str, Any]) -> tuple[FinishReason | None, str | None]:
    """Why a choice ended and at which stop string, which only vLLM tells; without one, `stop` is the model's own end.

    So are reasons that are not known here (`tool_calls`, `eos_token`, `end_turn`): the text will grow no further.
    """
    told, stop = choice.get("finish_reason"), choice.get("stop_reason")
    if told is None:
        return None, None
    if not isinstance(told, str):
        raise TypeError("a finish reason that is no text")
    # Gemini puts a filter's name before the reason.
    reason = told.lower().rpartition(": ")[2]
    if reason in _ENDLESS:
        return None, None
    if reason in _FAILED:
        raise UpstreamError(f"The upstream aborted the request ({reason}).")
    if reason in _CUT:
        return "length", None
    if reason in _FILTERED:
        return "content_filter", None
    return ("stop", stop) if isinstance(stop, str) else ("eos", None)
