"""A request for a response as the chat that it stands for, and the chat's errors in the request's own names."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from strategies.core.plain_words import reason
from tts_server.errors import APIError, InvalidRequest
from tts_server.schema.chat import ChatRequest, Sampled
from tts_server.schema.response_items import InputItem, joined
from tts_server.schema.responses import ResponsesRequest, ToolChoice

Json = dict[str, Any]

_NAMES = (
    (re.compile(r"response_format\.json_schema\.schema"), "text.format.schema"),
    (re.compile(r"\bresponse_format\b"), "text.format"),
    (re.compile(r"(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"\btool_choice\.function\b"), "tool_choice"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
)
"""What a chat's fields are called here."""


def chat_of(request: ResponsesRequest) -> ChatRequest:
    """The chat that is to be answered.

    Raises:
        InvalidRequest: a chat cannot hold the input.
    """
    reasoning, text = request.reasoning, request.text
    fields: Json = {name: getattr(request, name) for name in Sampled.model_fields}
    fields |= {
        "messages": turns_of(request),
        "max_completion_tokens": request.max_output_tokens,
        "reasoning_effort": reasoning.effort if reasoning else None,
        "response_format": text.format.response_format if text and text.format else None,
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs if request.logprobs else None,
        "chat_template_kwargs": request.chat_template_kwargs,
    }
    try:
        return ChatRequest.model_validate(fields | _tools(request))
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequest(
            f"input: as a chat it has wrong {first['loc'][-1]}: {reason(first)}", param="input"
        ) from None


def _tools(request: ResponsesRequest) -> Json:
    """The tools that may be called: those that the choice leaves, where it names several."""
    if not request.tools:
        return {}
    tools, choice = request.tools, request.tool_choice
    wanted: Any = choice
    if isinstance(choice, ToolChoice):
        wanted = choice.mode
        if choice.type == "function":
            wanted = {"type": "function", "function": {"name": choice.name}}
        else:
            tools = [tool for tool in tools if tool.name in choice.names]
    called = {"tool_choice": wanted, "parallel_tool_calls": request.parallel_tool_calls}
    return {"tools": [tool.tool for tool in tools], **called}


def turns_of(request: ResponsesRequest) -> list[Json]:
    """The instructions and the input as a chat's turns."""
    turns: list[Json] = []
    if request.instructions is not None:
        turns.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*turns, {"role": "user", "content": request.input}]
    return turns + _turns(request.input)


def _turns(items: Iterable[InputItem]) -> list[Json]:
    """Items as turns; what the model thought, said and called without anything between is one turn of its."""
    turns: list[Json] = []
    own: Json | None = None

    def unless(*taken: str) -> Json:
        """The model's turn that goes on; a new one where it has any of these already."""
        nonlocal own
        if own is None or not own.keys().isdisjoint(taken):
            own = {"role": "assistant"}
            turns.append(own)
        return own

    for item in items:
        match item.type, item.role:
            case "reasoning", _:
                if item.text:
                    turn = unless("content", "tool_calls")
                    turn["reasoning"] = turn.get("reasoning", "") + item.text
            case "message", "assistant":
                unless("content", "tool_calls")["content"] = item.text
            case "function_call", _:
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                unless().setdefault("tool_calls", []).append(call)
            case "function_call_output", _:
                own = None
                turns.append({"role": "tool", "tool_call_id": item.call_id, "content": joined(item.output)})
            case _, role:
                own = None
                turns.append({"role": role, "content": item.text})
    for turn in turns:
        if "tool_calls" not in turn:
            turn.setdefault("content", "")
    return turns


def renamed(error: APIError) -> APIError:
    """A chat's error, in the names of a request for a response."""
    if error.param is None:
        return error
    for name, ours in _NAMES:
        error.param = name.sub(ours, error.param)
        error.message = name.sub(ours, error.message)
    if error.param.partition("[")[0] == "messages":
        error.param = "input"
    return error
