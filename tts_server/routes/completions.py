"""`POST /v1/completions`."""

from fastapi import APIRouter, Request, Response

from tts_server.admission.queue import Flow
from tts_server.answer.completions import TextAnswer
from tts_server.answer.respond import respond
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.completion_prompts import plan_prompts
from tts_server.planning.service import Service
from tts_server.schema.completions import CompletionRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def completions(request: Request, body: CompletionRequest) -> Response:
    """Goes on with texts, with the strategy that the request asks for."""

    async def planned(service: Service, flow: Flow | None) -> TextAnswer:
        return TextAnswer(await plan_prompts(body, service, flow), body)

    return await respond(request, planned, stream=bool(body.stream))
