"""`POST /v1/prm/score`: the scores of solutions that the client has already."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from prm import Aggregation, PRMInputError, ProcessRewardModel, StepScores, aggregate
from strategies.budget import Account, Usage
from tts_server.connection import ClientLeft, while_connected
from tts_server.errors import InvalidRequest, UnsupportedParameter
from tts_server.json_body import JSONRoute
from tts_server.pool import pooled
from tts_server.protocol_prm import ScoreItem, ScoreRequest
from tts_server.quotas import bill
from tts_server.service import Service

router = APIRouter(route_class=JSONRoute)

QUESTIONS_AT_ONCE = 8
"""One request's share of a reward model that others use too."""


@router.post("/v1/prm/score")
async def score(request: Request, body: ScoreRequest) -> Response:
    """Scores one solution, or a batch of them in one call a question."""
    prm = _chosen(body.prm, request.app.state.service)
    account = Account()
    bill(request.scope, account)
    try:
        return await while_connected(request.receive, _answer(body, prm, account))
    except ClientLeft:
        return Response(status_code=499)


async def _answer(body: ScoreRequest, prm: ProcessRewardModel, account: Account) -> Response:
    try:
        results = await _score_all(body.items, account.meter_prm(prm))
    except PRMInputError as error:
        field = next(field for field in ("batch", "solution", "steps") if getattr(body, field) is not None)
        raise InvalidRequest(str(error), param=field) from error
    how = body.aggregation or prm.aggregation
    data = [_scored(result, how, prm.name) for result in results]
    if body.batch is None:
        return JSONResponse({**data[0], "usage": _spent(account.usage)})
    listed = [{"index": i, **item} for i, item in enumerate(data)]
    return JSONResponse({"object": "list", "data": listed, "model": prm.name, "usage": _spent(account.usage)})


async def _score_all(items: Sequence[ScoreItem], prm: ProcessRewardModel) -> list[StepScores]:
    """Each item's scores, in order; solutions of one question are scored in one call, which can share its work."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(item.asked, []).append(i)

    async def ask(question: str) -> list[StepScores]:
        return await prm.score(question, [items[i].parts for i in groups[question]])

    answers = await pooled(ask, list(groups), QUESTIONS_AT_ONCE)
    found = {
        i: result
        for group, results in zip(groups.values(), answers, strict=True)
        for i, result in zip(group, results, strict=True)
    }
    return [found[i] for i in range(len(items))]


def _chosen(name: str | None, service: Service) -> ProcessRewardModel:
    name = name or service.default_prm
    if name is None or not service.prms:
        raise UnsupportedParameter("This server has no reward model; it gets one with --prm NAME.", param="prm")
    if name not in service.prms:
        known = ", ".join(service.prms)
        raise InvalidRequest(f"There is no reward model {name!r}. Known: {known}.", param="prm")
    return service.prms[name]


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
