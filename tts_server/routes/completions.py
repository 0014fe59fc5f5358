"""`POST /v1/completions`."""

from fastapi import APIRouter, Request, Response

from tts_server.connection import ClientLeft, while_connected
from tts_server.json_body import JSONRoute
from tts_server.lifetime import Reply
from tts_server.plan_text import plan_prompts
from tts_server.protocol_completions import CompletionRequest
from tts_server.text_answer import TextAnswer

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def completions(request: Request, body: CompletionRequest) -> Response:
    """Goes on with texts, with the strategy that the request asks for."""
    try:
        prompts = await while_connected(request.receive, plan_prompts(body, request.app.state.service))
    except ClientLeft:
        return Response(status_code=499)
    return Reply(TextAnswer(prompts, body), bool(body.stream))
