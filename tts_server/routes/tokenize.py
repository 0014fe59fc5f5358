"""`POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`: the served model's tokenizer."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from strategies.core.contracts import Prompt, TokenIds
from tts_server.app_state import app_state
from tts_server.middleware.disconnect import connected
from tts_server.middleware.json_route import JSONRoute
from tts_server.planning.plan import alias_of
from tts_server.planning.service import Service
from tts_server.schema.tokenize import DetokenizeRequest, TokenizeRequest

router = APIRouter(route_class=JSONRoute)


@router.post("/tokenize")
async def tokenize(request: Request, body: TokenizeRequest) -> Response:
    """The token ids of a text, or of a chat as the model sees it."""
    service = _service(request, body.model)
    async with connected(request.receive):
        tokenizer = service.engine.tokenizer
        if body.prompt is None:
            ids = await service.engine.encode(_chat(body))
        else:
            ids = await tokenizer.encode(body.prompt, add_special_tokens=body.add_special_tokens is not False)
        told: dict[str, Any] = {"count": len(ids), "max_model_len": service.engine.max_model_len, "tokens": list(ids)}
        return JSONResponse(told | {"token_strs": await tokenizer.spell(ids) if body.return_token_strs else None})


@router.post("/detokenize")
async def detokenize(request: Request, body: DetokenizeRequest) -> dict[str, str]:
    """The text of token ids, control tokens included."""
    tokens: TokenIds = tuple(body.tokens)
    return {"prompt": await _service(request, body.model).engine.tokenizer.decode(tokens)}


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> Mapping[str, Any]:
    """What kind of tokenizer it is, its control tokens and the chat template."""
    return await _service(request, None).engine.tokenizer.describe()


def _service(request: Request, model: str | None) -> Service:
    service = app_state(request).service
    if model is not None:
        alias_of(model, service)
    return service


def _chat(body: TokenizeRequest) -> Prompt:
    continued = bool(body.continue_final_message)
    template: dict[str, Any] = dict(body.chat_template_kwargs or {})
    template["continue_final_message"] = continued
    template["add_generation_prompt"] = body.add_generation_prompt is not False and not continued
    if body.tools:
        template["tools"] = [tool.model_dump(exclude_none=True) for tool in body.tools]
    return Prompt(tuple(message.turn for message in body.messages or ()), template=template)
