"""`POST /v1/responses`."""

from fastapi import APIRouter, Request, Response

from tts_server.answer.chat import Envelope
from tts_server.answer.respond import Reply
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
async def respond(request: Request, body: ResponsesRequest) -> Response:
    """Answers without remembering: the input is the whole conversation."""
    planned = planned_of(body, request.app.state.service)
    envelope = Envelope(
        model=body.model,
        strategy=planned.strategy,
        account=planned.account,
        form=planned.form,
        logprobs=body.logprobs,
        return_candidates=bool(body.tts and body.tts.return_candidates),
        include_reasoning=body.include_reasoning is not False,
        id=f"resp_{unique()}",
    )
    return Reply(ResponseAnswer(planned, envelope, body), bool(body.stream))


def planned_of(body: ResponsesRequest, service: Service) -> Plan:
    """What to do, with errors in the request's own names."""
    try:
        return plan(chat_of(body), service)
    except APIError as error:
        raise renamed(error) from None
