"""`POST /v1/completions`."""

from fastapi import APIRouter, Request, Response

from tts_server.answer.completions import TextAnswer
from tts_server.answer.disconnect import ClientLeft, while_connected
from tts_server.answer.respond import Reply
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.completion_prompts import plan_prompts
from tts_server.schema.completions import CompletionRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def completions(request: Request, body: CompletionRequest) -> Response:
    """Goes on with texts, with the strategy that the request asks for."""
    try:
        prompts = await while_connected(request.receive, plan_prompts(body, request.app.state.service))
    except ClientLeft:
        return Response(status_code=499)
    return Reply(TextAnswer(prompts, body), bool(body.stream))
