"""Request of `/v1/completions` to a plan for each of its prompts."""

import asyncio
from dataclasses import dataclass, replace

import strategies
from strategies.core.concurrency import pooled
from strategies.core.contracts import Prompt, Sampling, Task, TokenIds
from strategies.core.latency import now
from tts_server.admission.queue import Flow
from tts_server.config import BudgetConfig
from tts_server.engines.base import ServedEngine
from tts_server.errors import ContextTooLong, InvalidRequest, Timeout, UnsupportedParameter
from tts_server.planning.plan import Approach, Plan, approach_of, budget_of
from tts_server.planning.service import Service
from tts_server.planning.task import form_of_answer, sampling_of
from tts_server.schema.completions import CompletionRequest

_ENCODED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class PromptPlan:
    """What to do for one prompt."""

    plan: Plan
    text: str
    token_ids: TokenIds
    begin: str
    """The text of its first token, where the request wants to see the prompt's logprobs."""


async def plan_prompts(request: CompletionRequest, service: Service, flow: Flow | None = None) -> list[PromptPlan]:
    """What to do for each prompt; each has the request's budget and an even share of the server's limit.

    Raises:
        APIError: the model or strategy is not known, an option is wrong, the engine cannot do it, or a prompt is not
            one of the model's.
    """
    approach = approach_of(request, service, flow)
    _refuse_unfit(request, approach)
    engine = service.engine
    form = form_of_answer(request, engine)
    sampling = replace(_sampling_of(request), structured=form.structured if form else None)
    limit = shared(service.settings.max_request, len(request.prompts))

    began, deadline_s = now(), budget_of(approach.budget, limit).deadline_s

    async def planned(prompt: str | list[int]) -> PromptPlan:
        ids, text = await _read(prompt, request, engine)
        task = Task(Prompt(token_ids=ids, text=text), sampling, request.n or 1)
        begin = await engine.tokenizer.decode(ids[:1]) if sampling.prompt_logprobs is not None else ""
        # An upstream may take its time to tell the tokens, and the deadline counts from before.
        plan = approach.plan(task, form, limit, began)
        return PromptPlan(plan, text, ids, begin)

    try:
        async with asyncio.timeout(deadline_s):
            return await pooled(planned, request.prompts, _ENCODED_AT_ONCE)
    except TimeoutError:
        raise Timeout("The deadline came before the prompt's tokens were known.") from None


def shared(limit: BudgetConfig, prompts: int) -> BudgetConfig:
    """A limit's even share; all have the same deadline."""
    amounts = {name: getattr(limit, name) for name in ("max_samples", "max_tokens", "max_prm_tokens")}
    shares = {name: min(amount, max(1, amount // prompts)) for name, amount in amounts.items() if amount is not None}
    return limit.model_copy(update=shares)


async def _read(prompt: str | list[int], request: CompletionRequest, engine: ServedEngine) -> tuple[TokenIds, str]:
    """A prompt's token ids and text."""
    tokenizer = engine.tokenizer
    if isinstance(prompt, str):
        ids = await tokenizer.encode(prompt, add_special_tokens=request.add_special_tokens is not False)
        text = prompt
    else:
        ids = tuple(prompt)
        try:
            text = await tokenizer.decode(ids)
        except InvalidRequest as error:
            raise InvalidRequest(error.message, param="prompt") from error
    if not ids:
        raise InvalidRequest("prompt: there are no tokens in it", param="prompt")
    if engine.max_model_len is not None and len(ids) >= engine.max_model_len:
        raise ContextTooLong(len(ids), engine.max_model_len, "prompt")
    return ids, text


def _sampling_of(request: CompletionRequest) -> Sampling:
    return replace(
        sampling_of(request),
        # With 0 only the prompt is told, and one token is sampled for nothing.
        max_tokens=max(1, request.limit),
        logprobs=request.logprobs,
        prompt_logprobs=request.logprobs if request.echo else None,
    )


def _refuse_unfit(request: CompletionRequest, approach: Approach) -> None:
    """Raises UnsupportedParameter for what goes with chats alone, or with answers that are one sample alone."""
    entry = approach.entry
    if not (entry.formed or entry.continues):
        others = ", ".join(e.name for e in strategies.registry().values() if e.formed or e.continues)
        raise UnsupportedParameter(
            f"the strategy {entry.name!r} goes on with a conversation, and a text is none; these take texts: {others}",
            param="tts.strategy",
        )
    for option in ("system_prompt", "examples"):
        if approach.options.get(option):
            raise UnsupportedParameter(f"{option} are turns of a chat, and a text has none", param=f"tts.{option}")
    if entry.whole:
        return
    if request.echo and request.logprobs is not None:
        raise UnsupportedParameter(
            f"the strategy {entry.name!r} draws its answer in parts, with which echo does not go", param="echo"
        )
