"""The requests of `/score` and `/rerank`: solutions of questions under the names that rerankers give them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, model_validator

from prm import Aggregation
from tts_server.schema.chat import UNSUPPORTED, bad
from tts_server.schema.common import TextPart, Wire
from tts_server.schema.prm import MAX_ITEMS, ScoreItem

_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "truncate_prompt_tokens": (None,),
    "max_tokens_per_query": (None, 0),
    "max_tokens_per_doc": (None, 0),
    "instruction": (None,),
    "chat_template_kwargs": (None, {}),
    "use_activation": (None, True),
    "rank_fields": (None, [], ["text"]),
    "max_chunks_per_doc": (None,),
    "mm_processor_kwargs": (None, {}),
}
"""Fields of vLLM, Jina and Cohere that are not honoured, each with the values that ask for nothing."""


class Document(Wire):
    """A text that is written as an object."""

    model_config = ConfigDict(extra="allow")

    text: str | None = None
    content: list[TextPart] | None = None

    @model_validator(mode="after")
    def _is_text(self) -> "Document":
        if (self.text is None) == (self.content is None):
            raise bad("a document is a text, or an object with either text or content", "text")
        return self

    @property
    def whole(self) -> str:
        return self.text if self.text is not None else "".join(part.text for part in self.content or ())


Text = str | Document
Texts = Annotated[Text | list[Text], Field(union_mode="left_to_right")]


class JudgingRequest(Wire):
    """What both endpoints share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    """The reward model, or the served model for its default one."""
    aggregation: Aggregation | None = None
    """Step scores to one score; the reward model's own if not given."""
    truncate_prompt_tokens: JsonValue = None
    max_tokens_per_query: JsonValue = None
    max_tokens_per_doc: JsonValue = None
    instruction: JsonValue = None
    chat_template_kwargs: JsonValue = None
    use_activation: JsonValue = None
    rank_fields: JsonValue = None
    max_chunks_per_doc: JsonValue = None
    mm_processor_kwargs: JsonValue = None

    @model_validator(mode="after")
    def _asks_for_nothing_else(self) -> Any:
        for field, neutral in _REFUSED.items():
            if getattr(self, field) not in neutral:
                raise bad(f"{field} is not supported", field, UNSUPPORTED)
        return self


class PairsRequest(JudgingRequest):
    """`POST /score`: one question with each solution, or as many questions as solutions; vLLM has four names for it."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None

    @model_validator(mode="after")
    def _is_paired(self) -> "PairsRequest":
        given = [name for name in _FIRST + _SECOND if getattr(self, name) is not None]
        if tuple(given) not in _PAIRS:
            raise bad(
                "give text_1 and text_2, queries and documents, queries and items, or data_1 and data_2", "text_1"
            )
        one, other = (_listed(getattr(self, name)) for name in given)
        for name, texts in zip(given, (one, other), strict=True):
            if not 0 < len(texts) <= MAX_ITEMS:
                raise bad(f"{name} holds 1 to {MAX_ITEMS} texts, got {len(texts)}", name)
        if len(one) not in (1, len(other)):
            raise bad(f"{given[0]} holds one text or as many as {given[1]}, got {len(one)} and {len(other)}", given[0])
        return self

    @property
    def solutions_field(self) -> str:
        return next(name for name in _SECOND if getattr(self, name) is not None)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Questions and solutions."""
        questions = _listed(next(getattr(self, name) for name in _FIRST if getattr(self, name) is not None))
        solutions = _listed(getattr(self, self.solutions_field))
        return list(zip(questions * (len(solutions) if len(questions) == 1 else 1), solutions, strict=True))


_FIRST = ("text_1", "queries", "data_1")
_SECOND = ("text_2", "documents", "items", "data_2")
_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class RerankRequest(JudgingRequest):
    """`POST /rerank`, as Jina and Cohere have it: the solutions of one question, best first."""

    query: Text
    documents: list[Text] = Field(min_length=1, max_length=MAX_ITEMS)
    top_n: int | None = Field(None, ge=0)
    """How many are returned; all of them with 0."""
    return_documents: bool | None = None
    """They are unless this is false."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The question with each solution."""
        (query,) = _listed(self.query)
        return [(query, solution) for solution in _listed(self.documents)]


def _listed(texts: Text | list[Text]) -> list[str]:
    several = texts if isinstance(texts, list) else [texts]
    return [text if isinstance(text, str) else text.whole for text in several]


def score_item(question: str, solution: str) -> ScoreItem:
    """A pair as the scoring of solutions has it.

    Raises:
        ValidationError: one of them is blank, or there are too many steps.
    """
    return ScoreItem(question=question, solution=solution, messages=None, steps=None)
