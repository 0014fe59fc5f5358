"""`POST /v1/chat/completions`."""

from fastapi import APIRouter, Request, Response

from tts_server.admission.queue import Flow
from tts_server.answer.chat import Envelope
from tts_server.answer.respond import ChatAnswer, respond
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.plan import plan
from tts_server.planning.service import Service
from tts_server.schema.chat import ChatRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/chat/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answers a chat with the strategy that it asks for."""

    async def planned(service: Service, flow: Flow | None) -> ChatAnswer:
        made = plan(body, service, flow)
        envelope = Envelope(
            model=body.model,
            strategy=made.strategy,
            account=made.account,
            choices=made.choices,
            form=made.form,
            logprobs=bool(body.logprobs),
            return_candidates=bool(body.tts and body.tts.return_candidates),
            include_reasoning=body.include_reasoning is not False,
            include_usage=bool(body.stream_options and body.stream_options.include_usage),
            continuous_usage=bool(body.stream_options and body.stream_options.continuous_usage_stats),
        )
        return ChatAnswer(made, envelope)

    return await respond(request, planned, stream=bool(body.stream))
