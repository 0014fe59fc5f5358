"""Between this server's words and vLLM's: sampling parameters in, deltas and refusals out."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from strategies.core.contracts import Chunk, FinishReason, Sampling, TokenLogprob
from tts_server.errors import APIError, InvalidRequest, UnsupportedParameter
from tts_server.forms.json_schema import field_of

_SAME_NAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
)
_PARAMS = (
    *_SAME_NAME,
    "allowed_token_ids",
    "bad_words",
    "max_tokens",
    "logit_bias",
    "logprobs",
    "logprob_token_ids",
    "stop_token_ids",
    "stop",
    "seed",
)


_FORM_WORDS = ("grammar", "schema", "structur", "regex", "choice")


def sampling_params(sampling: Sampling, defaults: Mapping[str, Any], room: int) -> Any:
    """The SamplingParams of one sample, without its seed.

    Args:
        sampling: What the request asks.
        defaults: What the model's own generation config says, for what the request leaves open.
        room: Tokens that the context has left.

    Raises:
        InvalidRequest: a value that vLLM does not take.
    """
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.sampling_params import RequestOutputKind  # noqa: PLC0415

    given = {name: value for name in _SAME_NAME if (value := getattr(sampling, name)) is not None}
    given = {**{name: value for name, value in defaults.items() if name in _SAME_NAME}, **given}
    # The likeliest tokens and named ones exclude each other.
    labels = list(sampling.logprob_token_ids) or None
    try:
        return SamplingParams(
            **given,
            max_tokens=room if sampling.max_tokens is None else min(sampling.max_tokens, room),
            stop=list(sampling.stop),
            include_stop_str_in_output=sampling.include_stop,
            bad_words=list(sampling.bad_words) or None,
            allowed_token_ids=list(sampling.allowed_token_ids) or None,
            stop_token_ids=list(sampling.stop_token_ids),
            ignore_eos=sampling.ignore_eos,
            logit_bias=dict(sampling.logit_bias) if sampling.logit_bias else None,
            logprobs=None if labels else sampling.logprobs,
            prompt_logprobs=sampling.prompt_logprobs,
            logprob_token_ids=labels,
            structured_outputs=_structured(sampling.structured),
            skip_special_tokens=not sampling.special_tokens,
            output_kind=RequestOutputKind.DELTA,
        )
    except client_errors() as error:
        raise refusal(error, sampling.structured) from error


def with_seed(params: Any, seed: int | None, index: int) -> Any:
    """The parameters of sample `index`; neighbouring seeds share no samples."""
    if seed is None:
        return params
    seeded = params.clone()
    seeded.seed = int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=7).digest())
    return seeded


def client_errors() -> tuple[type[Exception], ...]:
    """What vLLM raises where the request is at fault."""
    from vllm.exceptions import VLLMClientError  # noqa: PLC0415

    return (VLLMClientError, ValueError, TypeError)


def refusal(error: Exception, structured: Mapping[str, Any] | None = None) -> InvalidRequest:
    """The client's view of what vLLM refused, with the field's name if it can be told."""
    message = str(error)
    param = getattr(error, "parameter", None) or next((name for name in _PARAMS if name in message), None)
    if param is None and structured and any(word in message.lower() for word in _FORM_WORDS):
        param = field_of(structured)
    return InvalidRequest(message, param=param)


def chunk(index: int, output: Any, sampling: Sampling, *, first: bool) -> Chunk:
    """One sample's delta. `first` tells whether it is the sample's first, which carries the prompt's counts."""
    delta = output.outputs[0]
    token_ids = tuple(delta.token_ids)
    reason, stop = _ending(delta.finish_reason, delta.stop_reason)
    return Chunk(
        index,
        text=delta.text,
        token_ids=token_ids,
        completion_tokens=len(token_ids),
        logprobs=tuple(_logprobs(delta.logprobs, token_ids, sampling)) if delta.logprobs else (),
        prompt_logprobs=tuple(_prompt_logprobs(output, sampling)) if output.prompt_logprobs else (),
        prompt_tokens=len(output.prompt_token_ids) if first else 0,
        cached_tokens=output.num_cached_tokens or 0 if first else 0,
        finish_reason=reason,
        stop=stop,
        error=_failure(delta.finish_reason, sampling) if reason == "error" else None,
    )


def _failure(finish_reason: str, sampling: Sampling) -> APIError:
    if sampling.structured:
        # vLLM makes grammars in its other process, where one that cannot be made ends its request.
        return InvalidRequest("The engine cannot keep the answer to this form.", param=field_of(sampling.structured))
    return APIError(f"vLLM ended this sample with {finish_reason!r}.")


def _ending(finish_reason: str | None, stop_reason: str | int | None) -> tuple[FinishReason | None, str | None]:
    match finish_reason, stop_reason:
        case None, _:
            return None, None
        case "stop", str(stop):
            return "stop", stop
        case "stop", _:
            return "eos", None
        case "length", _:
            return "length", None
        case _:
            return "error", None


def _logprobs(positions: Any, token_ids: tuple[int, ...], sampling: Sampling) -> Iterator[TokenLogprob]:
    for token_id, entries in zip(token_ids, positions, strict=True):
        sampled = _logprob(token_id, entries[token_id])
        if sampling.logprob_token_ids:
            wanted = [label for label in sampling.logprob_token_ids if label in entries]
        else:
            # The sampled token stands among the entries even where it is not one of the likeliest.
            ranked = sorted(entries, key=lambda entry: entries[entry].rank)
            wanted = ranked[: sampling.logprobs]
        top = tuple(_logprob(entry, entries[entry]) for entry in wanted)
        yield TokenLogprob(sampled.token, sampled.logprob, token_id, top)


def _prompt_logprobs(output: Any, sampling: Sampling) -> Iterator[TokenLogprob]:
    for token_id, entries in zip(output.prompt_token_ids, output.prompt_logprobs, strict=True):
        if entries is not None:  # as the first token's are
            ranked = sorted(entries, key=lambda entry: entries[entry].rank)[: sampling.prompt_logprobs]
            own = _logprob(token_id, entries[token_id])
            yield TokenLogprob(own.token, own.logprob, token_id, tuple(_logprob(e, entries[e]) for e in ranked))


def _logprob(token_id: int, entry: Any) -> TokenLogprob:
    return TokenLogprob(entry.decoded_token or "", entry.logprob, token_id)


def _structured(response_format: Mapping[str, Any] | None) -> Any:
    """`Sampling.structured` as a constraint on decoding."""
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return StructuredOutputsParams(json_object=True)
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
            return StructuredOutputsParams(json=dict(schema))
        case {"type": "structural_tag"}:
            return StructuredOutputsParams(structural_tag=json.dumps(response_format))
        case {"type": "choice" | "regex" | "grammar" as kind}:
            return StructuredOutputsParams(**{kind: response_format[kind]})
        case _:
            raise UnsupportedParameter(
                "response_format must be of type 'text', 'json_object', or 'json_schema' with a schema.",
                param="response_format",
            )
