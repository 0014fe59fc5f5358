"""A chat's events to OpenAI's response: one object, or the events by which it comes to be. Both are one stream."""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from strategies.core.contracts import Delta, Event, Final, Progress
from tts_server.answer.chat import NO_END, Envelope, Json, finish_reason, places, spent, tts, usage
from tts_server.answer.response_items import Output
from tts_server.answer.sample_text import Voice
from tts_server.errors import APIError, translate
from tts_server.planning.plan import Plan
from tts_server.planning.response_chat import renamed
from tts_server.schema.responses import ENCRYPTED, ResponsesRequest, ToolChoice

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the chat's finish reason."""

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass(slots=True)
class ResponseAnswer:
    """A response: what its request asked, and what has come of it so far."""

    plan: Plan
    envelope: Envelope
    request: ResponsesRequest
    typed = True
    continuous = False
    _output: Output = field(init=False)
    _voice: Voice = field(init=False)
    _streamed: bool = field(default=False, init=False)
    _begun: bool = field(default=False, init=False)
    _told: int = field(default=0, init=False)
    """Events so far."""

    def __post_init__(self) -> None:
        self._output = Output(encrypted=ENCRYPTED in (self.request.include or ()))
        envelope = self.envelope
        self._voice = Voice(envelope.form, logprobs=envelope.logprobs, thoughts=envelope.include_reasoning)

    @property
    def plans(self) -> Sequence[Plan]:
        return (self.plan,)

    @property
    def id(self) -> str:
        return self.envelope.id

    @property
    def trace_id(self) -> str:
        return self.envelope.trace_id

    async def whole(self) -> Json:
        last: Json = {}
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                last = chunk
        whole: Json = last["response"]
        return whole

    async def chunks(self) -> AsyncGenerator[Json, None]:
        ended = False
        try:
            async with aclosing(self.plan.run()) as events:
                async for event in events:
                    ended = ended or isinstance(event, Final)
                    for change in self._changes(event):
                        yield self._numbered(change)
        except Exception as error:
            known = translate(error)
            if known.param is None:
                raise
            raise renamed(known) from error
        if not ended:
            raise RuntimeError(NO_END)

    def heartbeat(self) -> Json:
        return self._numbered(self._stage("created" if self._told == 0 else "in_progress"))

    def failure(self, error: APIError) -> Sequence[Json]:
        said = error.body["error"]
        # The SDKs raise what stands under `error`; the other fields are the published event's.
        told = {"type": "error", "code": said["code"], "message": said["message"], "param": said["param"]}
        failed = self._response("failed") | {
            "error": {"code": _code(error), "message": said["message"]},
            "usage": _renamed(spent(self.plan.account.usage, 0)),
        }
        return (
            self._numbered(told | {"error": said}),
            self._numbered({"type": "response.failed", "response": failed}),
        )

    def _changes(self, event: Event) -> Iterator[Json]:
        if self._told == 0:
            yield self._stage("created")
        if not self._begun:
            self._begun = True
            yield self._stage("in_progress")
        match event:
            case Progress(text) if self.envelope.include_reasoning:
                yield from self._output.progress(text + "\n")
            case Delta(chunk):
                self._streamed = True
                for said in self._voice.hear(chunk):
                    yield from self._output.say(said)
            case Final():
                yield from self._ending(event)
            case _:
                pass

    def _ending(self, final: Final) -> Iterator[Json]:
        (sample,) = places(final, self.envelope, set())
        for said in self._voice.end() if self._streamed else self._voice.all(sample):
            yield from self._output.say(said)
        cause = _INCOMPLETE.get(finish_reason(sample.finish_reason))
        yield from self._output.end(cut=cause is not None)
        status: Literal["incomplete", "completed"] = "incomplete" if cause else "completed"
        whole = self._response(status) | {"incomplete_details": {"reason": cause} if cause else None}
        cost = {"usage": _renamed(usage(final, self.envelope)), "tts": tts(final, self.envelope)}
        yield {"type": f"response.{status}", "response": whole | cost}

    def _stage(self, stage: Literal["created", "in_progress"]) -> Json:
        return {"type": f"response.{stage}", "response": self._response("in_progress")}

    def _response(self, status: Status) -> Json:
        """The response as it is now."""
        envelope = self.envelope
        return {
            "id": envelope.id,
            "object": "response",
            "created_at": envelope.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": envelope.model,
            "output": self._output.items,
        } | asked(self.request)

    def _numbered(self, event: Json) -> Json:
        event["sequence_number"] = self._told
        self._told += 1
        return event


def _renamed(used: Json) -> Json:
    """A chat's usage in a response's words."""
    return {
        "input_tokens": used["prompt_tokens"],
        "input_tokens_details": {**used["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": used["completion_tokens"],
        "output_tokens_details": used["completion_tokens_details"],
        "total_tokens": used["total_tokens"],
    }


def _code(error: APIError) -> Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]:
    """OpenAI's word for why a response failed."""
    match error.type:
        case "rate_limit_error":
            return "rate_limit_exceeded"
        case "invalid_request_error":
            return "invalid_prompt"
        case _:
            return "server_error"


def asked(request: ResponsesRequest) -> Json:
    """What a response repeats of its request."""
    choice, text, reasoning = request.tool_choice or "auto", request.text, request.reasoning
    form: dict[str, Any] = {"type": "text"}
    if text and text.format:
        form = text.format.model_dump(by_alias=True, exclude_none=True)
    repeated = {"type", "name", "description", "parameters", "strict"}
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": False,
        "temperature": request.temperature,
        "text": {"format": form} | ({"verbosity": text.verbosity} if text and text.verbosity else {}),
        "tool_choice": choice.model_dump(exclude_none=True) if isinstance(choice, ToolChoice) else choice,
        "tools": [tool.model_dump(include=repeated) for tool in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
    } | ({"user": request.user} if request.user is not None else {})
