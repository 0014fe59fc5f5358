"""What a request asks of the model: its chat, how it is sampled, and the form of the answer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import strategies
from strategies.core.contracts import Prompt, Sampling, Task
from tts_server.engines.base import ReadsCalls, ServedEngine
from tts_server.errors import UnsupportedParameter
from tts_server.forms.call_formats import FORMATS, HERMES, CallFormat
from tts_server.forms.form import Form
from tts_server.forms.json_schema import Schema
from tts_server.forms.tools import Tools
from tts_server.planning.service import Service
from tts_server.schema.chat import ChatRequest, SampledRequest

_LEAST_TOP_P = 1e-6
"""Stands for a `top_p` of 0, which engines refuse: the likeliest token."""


def refuse_unfit(entry: strategies.Entry, request: SampledRequest) -> None:
    """Raises UnsupportedParameter for a field that the strategy cannot honour."""

    def refuse(field: str, why: str) -> None:
        others = ", ".join(e.name for e in strategies.registry().values() if e.formed)
        raise UnsupportedParameter(f"the strategy {entry.name!r} {why}; these can: {others}", param=field)

    if not entry.formed:
        tools = tools_of(request) if isinstance(request, ChatRequest) else None
        for field, given in (("tools", tools), (format_field(request), format_of(request))):
            if given:
                refuse(field, f"builds its answer of parts and cannot keep to {field}")
    if not entry.whole:
        for field in ("presence_penalty", "frequency_penalty", "include_stop_str_in_output"):
            if getattr(request, field):
                refuse(field, f"draws its answer in parts, each of which would be a beginning to {field}")
        if request.min_tokens and not entry.continues:
            refuse("min_tokens", "draws its answer in parts, each of which would have to be as long as min_tokens")


def tools_of(request: ChatRequest) -> Tools | None:
    """The tools that the model may call."""
    if not request.tools or request.tool_choice == "none":
        return None
    choice = request.tool_choice or "auto"
    return Tools(
        tuple(tool.model_dump(exclude_none=True) for tool in request.tools),
        choice if isinstance(choice, str) else choice.model_dump(),
        parallel=request.parallel_tool_calls is not False,
    )


def format_field(request: SampledRequest) -> Literal["response_format", "structured_outputs"]:
    """The field that fixes the answer's form."""
    return "structured_outputs" if request.structured_outputs else "response_format"


def format_of(request: SampledRequest) -> Mapping[str, Any] | None:
    """What holds the answer, as `Form.asked` has it; None where it is any text."""
    if request.structured_outputs:
        return request.structured_outputs.response_format
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    return wanted.model_dump(by_alias=True, exclude_none=True)


def form_of(request: ChatRequest, service: Service) -> Form | None:
    """What the answer has to look like; None where the request leaves it open.

    Raises:
        InvalidRequest: a schema is none.
        UnsupportedParameter: the engine cannot keep the answer to it, or nobody knows how its model calls tools.
    """
    tools, form = tools_of(request), form_of_answer(request, service.engine)
    if tools is None:
        return form
    if form and form.schema is None and tools.choice == "auto":
        raise UnsupportedParameter(
            "structured_outputs goes with tools that may be called only where it is JSON", param="structured_outputs"
        )
    called = form_of_calls(tools, service)
    return replace(called, asked=form.asked, schema=form.schema) if form and tools.choice == "auto" else called


def form_of_answer(request: SampledRequest, engine: ServedEngine) -> Form | None:
    """The form of an answer that is no call; None where the request leaves it open."""
    asked, field = format_of(request), format_field(request)
    if asked is None:
        return None
    if not engine.constrains:
        raise UnsupportedParameter(f"the engine of {engine.model!r} cannot constrain its output", param=field)
    schema = None
    if asked["type"] == "json_object":
        schema = Schema(None, field)
    elif asked["type"] == "json_schema":
        place = "json" if field == "structured_outputs" else "json_schema.schema"
        schema = Schema(asked["json_schema"]["schema"], f"{field}.{place}")
    return Form(asked, schema)


def form_of_calls(tools: Tools, service: Service) -> Form:
    """The form of an answer that may be, or has to be, a call."""
    engine = service.engine
    must = tools.choice != "auto"
    if must and not (engine.constrains or engine.calls_itself):
        raise UnsupportedParameter(
            f"the engine of {engine.model!r} cannot make its model call a tool; let tool_choice be 'auto' or 'none'",
            param="tool_choice",
        )
    known = calls_of(engine, service.settings.tool_parser)
    if known is None and not must:
        raise UnsupportedParameter(
            f"how {engine.model!r} writes calls of tools is not known here; start the server with the setting "
            f"tool_parser: {', '.join(FORMATS)}, or with the engine vllm a name of vLLM's parsers",
            param="tools",
        )
    places = enumerate(tools.tools)
    schemas = {
        tool["function"]["name"]: Schema(
            tool["function"].get("parameters") or {"type": "object", "properties": {}},
            f"tools[{i}].function.parameters",
        )
        for i, tool in places
    }
    return Form(None, None, tools, schemas, known or HERMES, constrained=not engine.calls_itself)


def calls_of(engine: ServedEngine, configured: str) -> CallFormat | None:
    """How the engine's model writes calls; None where nobody knows."""
    if isinstance(engine, ReadsCalls) and engine.call_format:
        return engine.call_format
    name = engine.tool_format if configured == "auto" or engine.calls_itself else configured
    return FORMATS[name] if name else None


def task_of(request: ChatRequest, form: Form | None, engine: ServedEngine) -> Task:
    """The chat and how to sample it."""
    tools = form.tools if form else None
    continued = bool(request.continue_final_message)
    template: dict[str, Any] = dict(request.chat_template_kwargs or {})
    template["continue_final_message"] = continued
    template["add_generation_prompt"] = request.add_generation_prompt is not False and not continued
    if tools:
        template["tools"] = list(tools.tools)
    calling = tools if tools and engine.calls_itself else None
    return Task(
        Prompt(tuple(message.turn for message in request.messages), template=template),
        replace(
            sampling_of(request),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            structured=form.structured if form else None,
            calling=as_asked(calling) if calling else None,
            # A call that is constrained is JSON, whatever the model's own way.
            special_tokens=bool(form and tools and tools.choice == "auto" and form.calls.special_tokens),
        ),
        choices=request.n or 1,
    )


def sampling_of(request: SampledRequest) -> Sampling:
    """How to sample a chat or a text."""
    stop = request.stop or ()
    return Sampling(
        max_tokens=request.limit,
        temperature=request.temperature,
        top_p=None if request.top_p is None else max(request.top_p, _LEAST_TOP_P),
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias={int(k): v for k, v in request.logit_bias.items()} if request.logit_bias else None,
        seed=request.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        stop_token_ids=tuple(request.stop_token_ids or ()),
        min_tokens=request.min_tokens,
        ignore_eos=bool(request.ignore_eos),
        include_stop=bool(request.include_stop_str_in_output),
        bad_words=tuple(request.bad_words or ()),
        allowed_token_ids=tuple(request.allowed_token_ids or ()),
        cache_salt=request.cache_salt,
    )


def as_asked(tools: Tools) -> Mapping[str, Any]:
    """The tools as OpenAI's fields."""
    return {
        "tools": list(tools.tools),
        "tool_choice": tools.choice,
        **({} if tools.parallel else {"parallel_tool_calls": False}),
    }
