"""The graph of operations of a search over thoughts: what an operation is, and which graphs make sense."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Instruction = Annotated[
    str | None,
    Field(max_length=20_000, description="What the model is told to do, in place of the operation's own words."),
]

MAX_WRITTEN = 4096


class _Operation(BaseModel):
    """One operation on thoughts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str | None = Field(None, min_length=1, max_length=64, description="Null: the operation's place, from 1.")
    after: list[str] | None = Field(
        None, description="The operations whose thoughts it takes, each listed before it. Null: the one before it."
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, keys: Any) -> Any:
        return {key: value for key, value in keys.items() if value is not None} if isinstance(keys, dict) else keys


class Generate(_Operation):
    """Writes k new thoughts: of the problem, or of each thought it takes."""

    op: Literal["generate"]
    k: int = Field(4, ge=1, le=1000, description="Thoughts to write.")
    instruction: Instruction = None


class Score(_Operation):
    """Values each thought, by the reward model or the policy."""

    op: Literal["score"]
    samples: int = Field(3, ge=1, le=100, description="Evaluations of each thought by the policy.")


class KeepBest(_Operation):
    """Keeps the n thoughts of the highest value."""

    op: Literal["keep_best"]
    n: int = Field(1, ge=1, le=1000, description="Thoughts to keep.")


class Aggregate(_Operation):
    """Merges all the thoughts that it takes into k new ones."""

    op: Literal["aggregate"]
    k: int = Field(1, ge=1, le=1000, description="Merged thoughts to write.")
    instruction: Instruction = None


class Refine(_Operation):
    """Writes an improved version of each thought; the old one is left behind."""

    op: Literal["refine"]
    instruction: Instruction = None


Operation = Annotated[Generate | Score | KeepBest | Aggregate | Refine, Field(discriminator="op")]


def names_of(graph: Sequence[Operation]) -> list[str]:
    return [operation.name or str(place) for place, operation in enumerate(graph, 1)]


def edges_of(graph: Sequence[Operation]) -> dict[str, tuple[str, ...]]:
    """The names of the operations whose thoughts each one takes."""
    names = names_of(graph)
    before = [(), *((name,) for name in names)]
    return {
        name: previous if operation.after is None else tuple(operation.after)
        for name, operation, previous in zip(names, graph, before, strict=False)
    }


def check(graph: list[Operation]) -> list[Operation]:
    """The graph, if names differ, edges lead forward, choices are scored and it does not write too much.

    Raises:
        ValueError: it is none; the message names the operation.
    """
    names, seen, scored = names_of(graph), set[str](), set[str]()
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two operations are named {twice!r}")
    edges = edges_of(graph)
    for name, operation in zip(names, graph, strict=True):
        for other in edges[name]:
            if other not in seen:
                earlier = ", ".join(map(repr, names[: names.index(name)])) or "none"
                raise ValueError(f"operation {name!r} comes after {other!r}, which is not listed before it ({earlier})")
        if not edges[name] and not isinstance(operation, Generate):
            raise ValueError(f"operation {name!r} ({operation.op}) takes no thoughts; only generate can begin a graph")
        if isinstance(operation, KeepBest):
            unscored = [other for other in edges[name] if other not in scored]
            if unscored:
                raise ValueError(f"operation {name!r} (keep_best) takes thoughts of {unscored[0]!r} without a score")
        if isinstance(operation, Score | KeepBest):
            scored.add(name)
        seen.add(name)
    if (written := written_by(graph)) > MAX_WRITTEN:
        raise ValueError(f"a graph writes at most {MAX_WRITTEN} thoughts, this one {written}")
    return graph


def ends_of(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """The operations whose thoughts none takes: they answer."""
    taken = {other for others in edges.values() for other in others}
    return [name for name in edges if name not in taken]


def written_by(graph: Sequence[Operation]) -> int:
    """How many thoughts the graph writes if none fails."""
    edges, width, written = edges_of(graph), dict[str, int](), 0
    for name, operation in zip(names_of(graph), graph, strict=True):
        taken = sum(width[other] for other in edges[name])
        match operation:
            case Generate(k=k):
                width[name] = k * (taken if edges[name] else 1)
            case Aggregate(k=k):
                width[name] = k
            case KeepBest(n=n):
                width[name] = min(n, taken)
            case _:
                width[name] = taken
        written += width[name] if isinstance(operation, Generate | Aggregate | Refine) else 0
    return written


Graph = Annotated[list[Operation], Field(min_length=1, max_length=64), AfterValidator(check)]

DEFAULT: list[Operation] = [
    Generate(op="generate", k=4),
    Score(op="score"),
    KeepBest(op="keep_best", name="best", n=3),
    Aggregate(op="aggregate"),
    Refine(op="refine"),
    Score(op="score", name="scored"),
    # What was merged and refined must beat what it was made of.
    KeepBest(op="keep_best", after=["best", "scored"], n=1),
]
"""For questions with an answer."""
