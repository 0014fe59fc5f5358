"""`POST /score` and `POST /rerank`: reward models as rerankers, whose documents are solutions of the question asked."""

import time

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from prm import PRMInputError, ProcessRewardModel, aggregate
from strategies.core.account import Account
from strategies.core.metered import MeteredPRM
from strategies.core.plain_words import reason
from tts_server.app_state import app_state
from tts_server.errors import InvalidRequest, ModelNotFound
from tts_server.middleware.disconnect import connected
from tts_server.middleware.json_route import JSONRoute
from tts_server.prm_serving.score_requests import chosen, score_all
from tts_server.request_state import state_of
from tts_server.schema.ids import unique
from tts_server.schema.prm import ScoreItem
from tts_server.schema.rerank import JudgingRequest, PairsRequest, RerankRequest, score_item

router = APIRouter(route_class=JSONRoute)


@router.post("/score")
@router.post("/v1/score")
async def score(request: Request, body: PairsRequest) -> Response:
    """The score of each pair of a question and a solution."""
    prm, account = _prm(body, request), Account()
    state_of(request).bill(account)
    async with connected(request.receive):
        scores = await _scores(body, body.pairs, body.solutions_field, prm, account)
    data = [{"index": i, "object": "score", "score": value} for i, value in enumerate(scores)]
    head = {"id": _id("score"), "object": "list", "created": int(time.time()), "model": prm.name, "data": data}
    return JSONResponse(head | {"usage": _usage(account) | {"completion_tokens": 0}})


@router.post("/rerank")
@router.post("/v1/rerank")
@router.post("/v2/rerank")
async def rerank(request: Request, body: RerankRequest) -> Response:
    """The solutions of one question, best first; equal ones keep their order."""
    prm, account, pairs = _prm(body, request), Account(), body.pairs
    state_of(request).bill(account)
    async with connected(request.receive):
        scores = await _scores(body, pairs, "documents", prm, account)
    results = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i])[: body.top_n or None]:
        shown = {} if body.return_documents is False else {"document": {"text": pairs[i][1]}}
        results.append({"index": i, **shown, "relevance_score": scores[i]})
    return JSONResponse({"id": _id("rerank"), "model": prm.name, "results": results, "usage": _usage(account)})


async def _scores(
    body: JudgingRequest, pairs: list[tuple[str, str]], field: str, prm: ProcessRewardModel, account: Account
) -> list[float]:
    items = [_item(i, question, solution, field) for i, (question, solution) in enumerate(pairs)]
    try:
        results = await score_all(items, MeteredPRM(prm, account, strict=True))
    except PRMInputError as error:
        raise InvalidRequest(str(error), param=field) from error
    return [aggregate(result.scores, body.aggregation or prm.aggregation) for result in results]


def _item(index: int, question: str, solution: str, field: str) -> ScoreItem:
    try:
        return score_item(question, solution)
    except ValidationError as error:
        said = reason(error.errors(include_url=False)[0])
        raise InvalidRequest(f"{field}: pair {index}: {said}", param=field) from None


def _prm(body: JudgingRequest, request: Request) -> ProcessRewardModel:
    """The reward model that `model` names; the served model stands for the default one."""
    service = app_state(request).service
    if body.model in (None, service.engine.model):
        return chosen(None, service)
    if body.model not in service.prms:
        raise ModelNotFound(str(body.model), [*service.prms, service.engine.model])
    return chosen(body.model, service)


def _usage(account: Account) -> dict[str, int]:
    tokens = account.usage.prm_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _id(kind: str) -> str:
    return f"{kind}-{unique()}"
