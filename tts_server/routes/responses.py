"""`POST /v1/responses`."""

from fastapi import APIRouter, Request, Response

from tts_server.admission.queue import Flow
from tts_server.answer.chat import Envelope
from tts_server.answer.respond import respond
from tts_server.answer.responses import ResponseAnswer
from tts_server.errors import APIError
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.plan import Plan, plan
from tts_server.planning.response_chat import chat_of, renamed
from tts_server.planning.service import Service
from tts_server.schema.ids import unique
from tts_server.schema.responses import ResponsesRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/responses", responses={200: {"content": {"text/event-stream": {}}}})
async def responses(request: Request, body: ResponsesRequest) -> Response:
    """Answers without remembering: the input is the whole conversation."""

    async def planned(service: Service, flow: Flow | None) -> ResponseAnswer:
        made = planned_of(body, service, flow)
        envelope = Envelope(
            model=body.model,
            strategy=made.strategy,
            account=made.account,
            form=made.form,
            logprobs=body.logprobs,
            return_candidates=bool(body.tts and body.tts.return_candidates),
            include_reasoning=body.include_reasoning is not False,
            id=f"resp_{unique()}",
        )
        return ResponseAnswer(made, envelope, body)

    return await respond(request, planned, stream=bool(body.stream))


def planned_of(body: ResponsesRequest, service: Service, flow: Flow | None = None) -> Plan:
    """What to do, with errors in the request's own names."""
    try:
        return plan(chat_of(body), service, flow)
    except APIError as error:
        raise renamed(error) from None
