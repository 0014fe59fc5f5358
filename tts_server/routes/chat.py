"""`POST /v1/chat/completions`."""

from fastapi import APIRouter, Request, Response

from tts_server.answer.chat import Envelope
from tts_server.answer.respond import ChatAnswer, Reply
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.plan import plan
from tts_server.schema.chat import ChatRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/chat/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answers a chat with the strategy that it asks for."""
    planned = plan(body, request.app.state.service)
    envelope = Envelope(
        model=body.model,
        strategy=planned.strategy,
        account=planned.account,
        choices=planned.choices,
        form=planned.form,
        logprobs=bool(body.logprobs),
        return_candidates=bool(body.tts and body.tts.return_candidates),
        include_reasoning=body.include_reasoning is not False,
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
        continuous_usage=bool(body.stream_options and body.stream_options.continuous_usage_stats),
    )
    return Reply(ChatAnswer(planned, envelope), bool(body.stream))
