"""Reward models on a vLLM server: `/pooling` for classification heads, `/v1/completions` for label tokens.

Both take token ids, so nothing of a chat template or a tokenizer is left to the server. Scoring changes nothing there:
a request that found no answer is sent again, as `tts_server.upstream.client` does it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from prm import OnTokens, PRMError
from prm.families.contract import Head, LabelTokens, Layout
from strategies.core.concurrency import pooled
from strategies.core.contracts import TokenIds
from tts_server.engines.openai.values import MISFORMED, number_in
from tts_server.errors import APIError, InvalidRequest, UpstreamError
from tts_server.prm_serving.heads import score, width
from tts_server.prm_serving.judge_engine import share
from tts_server.upstream.client import Upstream
from tts_server.upstream.errors import NoSuchPath

AT_ONCE = 8
"""Requests of one call that are under way at once."""
PROMPTS, TOKENS = 64, 16384
"""The most of one request: an answer tells two numbers a token."""

Shape = Literal["all", "step", "last"]
"""Which tokens the server tells the rows of: every one, those that end a step, or a prompt's last."""


class RemoteReader:
    """A backend on a vLLM server.

    Args:
        http: the server's connections, without `/v1`; closed with this backend.
        model: what the server calls the model, where it serves several.
        head: the family's.
    """

    def __init__(self, http: Upstream, model: str, head: Head) -> None:
        self._http = http
        self._model = model
        self._head = head
        self._max_len = 0
        self._shape: Shape = "last"

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """The one there is, for whoever counts."""
        return (self._http,)

    @property
    def max_len(self) -> int:
        # A server that generates needs room for the label.
        return self._max_len - isinstance(self._head, LabelTokens)

    async def start(self) -> None:
        """Finds the model, and which rows the server tells.

        Raises:
            UpstreamError: it cannot be reached, does not serve the model, or serves it as something else.
        """
        try:
            self._model, self._max_len = await self._find_model()
            if not isinstance(self._head, LabelTokens):
                self._shape = await self._find_shape()
        except (APIError, PRMError, *MISFORMED) as error:
            await self._http.close()
            why = error if isinstance(error, APIError | PRMError) else "its answers are not in vLLM's format"
            raise UpstreamError(f"The reward model's server {self._http.origin}: {why}") from error

    async def close(self) -> None:
        await self._http.close()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        """See `prm.families.contract.Backend`. What the server does not tell to be cached counts as computed."""
        asked = list(layouts)
        if self._shape == "last":
            asked = [Layout(layout.token_ids[: end + 1], (end,)) for layout in layouts for end in layout.ends]
        ask = self._labels if isinstance(self._head, LabelTokens) else self._rows
        try:
            groups = await pooled(partial(ask, on_tokens), list(_groups(asked)), AT_ONCE)
        except MISFORMED as error:
            raise PRMError("the server's answer is not in vLLM's format") from error
        scores = iter([score for group in groups for those in group for score in those])
        return [tuple(next(scores) for _ in layout.ends) for layout in layouts]

    async def _labels(self, on_tokens: OnTokens | None, layouts: Sequence[Layout]) -> list[tuple[float, ...]]:
        """The label's share after each prompt."""
        labels = self._head
        if not isinstance(labels, LabelTokens):
            raise TypeError(f"{labels!r} has no labels")
        wanted = [labels.right, labels.wrong]
        body = {
            "prompt": [layout.token_ids for layout in layouts],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": len(wanted),
            "logprob_token_ids": wanted,
            "return_tokens_as_token_ids": True,
        }
        answer = await self._post("/v1/completions", body, "start it without --runner pooling")
        _tell(on_tokens, answer)
        choices = _listed(answer, "choices", len(layouts))
        return [(_share(choice, labels),) for choice in choices]

    async def _rows(self, on_tokens: OnTokens | None, layouts: Sequence[Layout]) -> list[tuple[float, ...]]:
        """The scores at the ends of each prompt."""
        answer = await self._pool([layout.token_ids for layout in layouts])
        _tell(on_tokens, answer)
        data = [item.get("data") for item in _listed(answer, "data", len(layouts))]
        return [self._scores(layout, rows) for layout, rows in zip(layouts, data, strict=True)]

    def _scores(self, layout: Layout, rows: Any) -> tuple[float, ...]:
        if self._shape == "last":
            return (score(self._head, rows),)
        ids, tag = layout.token_ids, layout.token_ids[-1]
        told = range(len(ids)) if self._shape == "all" else [i for i, token in enumerate(ids) if token == tag]
        if len(rows) != len(told):
            tag_id = f"; is its step_tag_id {tag}, the family's?" if self._shape == "step" else ""
            raise PRMError(f"the server told {len(rows)} rows where there are {len(told)}{tag_id}")
        row_of = dict(zip(told, rows, strict=True))
        return tuple(score(self._head, row_of[end]) for end in layout.ends)

    async def _find_model(self) -> tuple[str, int]:
        answer = await self._http.get("/v1/models")
        cards = answer.get("data") if isinstance(answer, dict) else None
        known = {card["id"]: card for card in cards or () if isinstance(card, dict) and "id" in card}
        name = next(iter(known)) if len(known) == 1 else self._model
        if name not in known:
            raise PRMError(f"it serves {', '.join(known) or 'no model'}, not {name!r}")
        length = known[name].get("max_model_len")
        if not isinstance(length, int):
            raise PRMError("it does not tell max_model_len, so it is not vLLM")
        return name, length

    async def _find_shape(self) -> Shape:
        """Asks for a prompt of three tokens, of which none but the last can be a step's tag."""
        answer = await self._pool([(3, 4, 5)])
        rows = _listed(answer, "data", 1)[0].get("data")
        if isinstance(rows, list) and rows and not isinstance(rows[0], list):
            self._check_width(rows)
            return "last"
        for row in rows if isinstance(rows, list) else ():
            self._check_width(row)
        match rows:
            case [_, _, _]:
                return "all"
            case [] | [_]:
                return "step"
        raise PRMError("its answer to /pooling holds no rows of numbers")

    def _check_width(self, row: Sequence[float]) -> None:
        if len(row) != width(self._head):
            raise PRMError(
                f"it gives {len(row)} numbers at a token, where the model's family has {width(self._head)}: it serves "
                "something else than the head, such as embeddings; start it with `vllm serve MODEL --runner pooling`, "
                "and --convert classify for a model that has a head"
            )

    async def _pool(self, prompts: Sequence[TokenIds]) -> Any:
        body = {"input": prompts, "use_activation": False}
        return await self._post("/pooling", body, "start it with `vllm serve MODEL --runner pooling`")

    async def _post(self, path: str, body: Mapping[str, Any], else_: str) -> Any:
        try:
            return await self._http.post(path, {"model": self._model, **body})
        except NoSuchPath as error:
            raise PRMError(f"it does not serve {path}, which the model's family needs: {else_}") from error
        except InvalidRequest as error:
            raise PRMError(f"the server refused the tokens of a solution: {error.message}") from error


def _groups(layouts: Sequence[Layout]) -> Iterator[list[Layout]]:
    """The layouts in order, in requests that are not too large."""
    group, tokens = list[Layout](), 0
    for layout in layouts:
        tokens += len(layout.token_ids)
        if group and (len(group) == PROMPTS or tokens > TOKENS):
            yield group
            group, tokens = [], len(layout.token_ids)
        group.append(layout)
    if group:
        yield group


def _listed(answer: Any, field: str, count: int) -> list[Mapping[str, Any]]:
    """The items of an answer in the order of the prompts."""
    items = answer.get(field) if isinstance(answer, dict) else None
    if not isinstance(items, list) or {item.get("index") for item in items} != set(range(count)):
        raise PRMError(f"the server's answer has not one of {field} for each of {count} prompts")
    return sorted(items, key=lambda item: int(item["index"]))


def _share(choice: Mapping[str, Any], labels: LabelTokens) -> float:
    tops = (choice.get("logprobs") or {}).get("top_logprobs") or [{}]
    try:
        return share(*(tops[0][f"token_id:{label}"] for label in (labels.right, labels.wrong)))
    except KeyError as error:
        raise PRMError(f"the server told no logprob of the label's {error.args[0]}") from error


def _tell(on_tokens: OnTokens | None, answer: Any) -> None:
    usage = (answer.get("usage") if isinstance(answer, dict) else None) or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    if on_tokens:
        on_tokens(max(0, number_in(usage.get("total_tokens") or 0) - number_in(cached)))
