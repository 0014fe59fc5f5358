"""`POST /v1/prm/score`: the scores of solutions that the client has already."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from prm import Aggregation, PRMInputError, ProcessRewardModel, StepScores, aggregate
from strategies.core.account import Account, Usage
from strategies.core.metered import MeteredPRM
from tts_server.app_state import app_state
from tts_server.errors import InvalidRequest
from tts_server.middleware.disconnect import connected
from tts_server.middleware.json_route import JSONRoute
from tts_server.prm_serving.score_requests import chosen, score_all
from tts_server.request_state import state_of
from tts_server.schema.prm import ScoreRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/v1/prm/score")
async def score(request: Request, body: ScoreRequest) -> Response:
    """Scores one solution, or a batch of them in one call a question."""
    prm = chosen(body.prm, app_state(request).service)
    account = Account()
    state_of(request).bill(account)
    async with connected(request.receive):
        return await _answer(body, prm, account)


async def _answer(body: ScoreRequest, prm: ProcessRewardModel, account: Account) -> Response:
    try:
        results = await score_all(body.items, MeteredPRM(prm, account, strict=True))
    except PRMInputError as error:
        field = next(field for field in ("batch", "solution", "steps") if getattr(body, field) is not None)
        raise InvalidRequest(str(error), param=field) from error
    how = body.aggregation or prm.aggregation
    data = [_scored(result, how, prm.name) for result in results]
    if body.batch is None:
        return JSONResponse({**data[0], "usage": _spent(account.usage)})
    listed = [{"index": i, **item} for i, item in enumerate(data)]
    return JSONResponse({"object": "list", "data": listed, "model": prm.name, "usage": _spent(account.usage)})


def _scored(result: StepScores, how: Aggregation, model: str) -> dict[str, Any]:
    return {
        "object": "prm.score",
        "scores": list(result.scores),
        "score": aggregate(result.scores, how),
        "aggregation": how,
        "model": model,
    }


def _spent(usage: Usage) -> dict[str, int]:
    return {"prm_tokens": usage.prm_tokens, "prm_calls": usage.prm_calls}
