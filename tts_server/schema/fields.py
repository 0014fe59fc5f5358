"""What becomes of the fields that a request for answers may carry and no model of it names.

One table for chats, texts and responses: a field is refused, or it is known to have no effect on the answer; whatever
else a client adds is accepted, as SDKs add fields, unless it is one of ours in the wrong place.
"""

from collections.abc import Mapping
from typing import Any

import strategies
from tts_server.config import BudgetConfig

Neutral = tuple[Any, ...]

_OFF: Neutral = (None, False)
_OLD = "vLLM has dropped it for structured_outputs"

REFUSED: Mapping[str, tuple[Neutral, str]] = {
    # OpenAI's
    "functions": ((None,), "tools has taken its place"),
    "function_call": ((None,), "tool_choice has taken its place"),
    "audio": ((None,), "only text is generated"),
    "prediction": ((None,), "nothing is predicted beforehand"),
    "web_search_options": ((None,), "nothing is looked up"),
    "suffix": ((None, ""), "text is only generated behind a prompt"),
    "best_of": ((None, 1), "to sample more and get the best, ask for the strategy 'best_of_n' in tts"),
    "moderation": ((None,), "nobody here judges"),
    # vLLM's
    "use_beam_search": (_OFF, "for a search, ask for a strategy in tts"),
    "length_penalty": ((None, 1), "it is a part of use_beam_search"),
    "skip_special_tokens": ((None, True), "control tokens are never a part of the text"),
    "spaces_between_special_tokens": ((None, True), "control tokens are never a part of the text"),
    "truncate_prompt_tokens": ((None,), "what does not fit is refused, and nothing left out"),
    "truncation": ((None, "disabled"), "what does not fit is refused, and nothing left out"),
    "prompt_logprobs": ((None,), "/v1/completions gives them, with echo and logprobs"),
    "logprob_token_ids": ((None, []), "top_logprobs gives the likeliest tokens"),
    "return_tokens_as_token_ids": (_OFF, "tokens are given as text"),
    "return_token_ids": (_OFF, "/v1/completions gives them"),
    "return_token_offsets": (_OFF, "/v1/completions gives text_offset with logprobs"),
    "return_prompt_text": (_OFF, "/tokenize and /detokenize tell how a chat is rendered"),
    "enable_response_messages": (_OFF, "/tokenize and /detokenize tell how a chat is rendered"),
    "previous_input_messages": ((None, []), "nothing is kept between requests"),
    "prompt_embeds": ((None, []), "a prompt is text or token ids"),
    "chat_template": ((None,), "the model's own renders, and a client's could run anything"),
    "documents": ((None, []), "where the model's template takes them, they stand in chat_template_kwargs"),
    "add_special_tokens": (_OFF, "the chat template writes them"),
    "echo": (_OFF, "to go on with an answer, send continue_final_message"),
    "thinking_token_budget": ((None,), "the strategy 'budget_forcing' limits a thought"),
    "priority": ((None, 0), "requests are served in turn, whoever sends them"),
    "watermarking": (_OFF, "no text is marked"),
    "repetition_detection": ((None,), "repetition_penalty and max_tokens are what there is"),
    "kv_transfer_params": ((None, {}), "the engine's caches are its own"),
    "ec_transfer_params": ((None, {}), "the engine's caches are its own"),
    "vllm_xargs": ((None, {}), "what is not named is not passed on"),
    # vLLM's of old
    "guided_json": ((None,), f"{_OLD}: {{'json': …}}"),
    "guided_json_object": (_OFF, f"{_OLD}: {{'json_object': true}}"),
    "guided_choice": ((None, []), f"{_OLD}: {{'choice': […]}}"),
    "guided_regex": ((None, ""), f"{_OLD}: {{'regex': …}}"),
    "guided_grammar": ((None, ""), f"{_OLD}: {{'grammar': …}}"),
    "guided_decoding_backend": ((None, ""), "the server's engine chooses"),
    "guided_whitespace_pattern": ((None, ""), "the server's engine chooses"),
}
"""Fields that would change the answer and are not honoured: the values that ask for nothing, and why."""

WITHOUT_EFFECT = frozenset(
    {
        # OpenAI's
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "verbosity",
        # vLLM's: what is sent how often, to whom and under which name
        "request_id",
        "session_id",
        "stream_interval",
        # vLLM's: they go with media, or with something that is refused
        "media_io_kwargs",
        "mm_processor_kwargs",
        "mm_payload",
        "return_mm_kwargs",
        "routed_experts_prompt_start",
        "truncation_side",
    }
)
"""Fields that clients know and that change nothing in the answer."""

_ALMOST_TTS = {"tss", "ttts", "ttss", "tts_", "tt_s", "test_time_scaling", "tts_options", "tts_config"}
_TTS = {"strategy", "budget", "prm", "return_candidates", "selector", "aggregation"}


def misplaced(name: str) -> str | None:
    """Where a field belongs that is one of ours in the wrong place; None for any other."""
    if name.lower() in _ALMOST_TTS or (name.lower() == "tts" and name != "tts"):
        return "the field is called tts"
    if name == "extra_body":
        return "SDKs send what is in it as fields of the request itself"
    if name in BudgetConfig.model_fields:
        return f"it is a key of tts.budget: {{'tts': {{'budget': {{{name!r}: …}}}}}}"
    # An option of one plain word may be a field of somebody else's.
    options = {option for entry in strategies.registry().values() for option in entry.options.model_fields}
    if name in _TTS or ("_" in name and name in options - {"top_logprobs"}):
        return f"it is a key of tts: {{'tts': {{{name!r}: …}}}}"
    return None


def refusal(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first of these fields that is refused, and why; None if all may stay."""
    for name, value in fields.items():
        neutral, why = REFUSED.get(name, ((None,), misplaced(name)))
        if why is not None and not any(_same(value, nothing) for nothing in neutral):
            return name, why
    return None


def _same(value: Any, other: Any) -> bool:
    # True and 1 are equal in Python alone.
    return value == other and isinstance(value, bool) == isinstance(other, bool)
