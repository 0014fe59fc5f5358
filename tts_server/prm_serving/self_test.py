"""What a reward model has to pass before it serves: one that is run wrongly answers with plausible numbers."""

from collections.abc import Sequence

from prm import PRMError
from prm.families.contract import Backend, Family, Layout

TOLERANCE = 0.02
"""By how much two ways to one score may differ: the rounding of bfloat16, and no more."""
SWAPPED = 0.5
"""By how much a wrong solution may be preferred to a right one where there is no reference."""
QUESTION = "A box holds 12 eggs. Ann buys 3 boxes and uses 5 eggs. How many eggs are left?"
RIGHT = (
    "There are 3 boxes of 12 eggs, so Ann buys 3 * 12 = 36 eggs.",
    "She uses 5 of them, so 36 - 5 = 31 eggs are left.",
    "The answer is \\boxed{31}.",
)
WRONG = (
    "There are 3 boxes of 12 eggs, so Ann buys 3 + 12 = 15 eggs.",
    "She uses 5 of them, so 15 + 5 = 21 eggs are left.",
    "The answer is \\boxed{21}.",
)


def layouts_of(family: Family) -> list[Layout]:
    """What is read in the test: the right solution, then the wrong one."""
    return [layout for steps in (RIGHT, WRONG) for layout in family.layouts(QUESTION, steps)]


async def self_test(
    name: str, family: Family, backend: Backend, reference: Sequence[tuple[float, ...]] | None = None
) -> None:
    """Scores the solutions whole and step by step, and holds them against the reference.

    Args:
        name: of the model.
        family: of the model.
        backend: one that keeps no scores of its own, started.
        reference: the scores of `layouts_of(family)` by a plain forward pass; None where there are no weights for it.

    Raises:
        PRMError: the scores are not the model's.
    """
    layouts = layouts_of(family)
    longest = max(len(layout.token_ids) for layout in layouts)
    if longest > backend.max_len:
        raise PRMError(f"{name!r} takes {backend.max_len} tokens, too few for its self-test, which has {longest}")
    whole = _flat(await backend.read(layouts))
    alone = [Layout(layout.token_ids[: end + 1], (end,)) for layout in layouts for end in layout.ends]
    _compare(name, whole, _flat(await backend.read(alone)), "step by step, whole it scores")
    if reference is not None:
        _compare(name, whole, _flat(reference), "in a plain forward pass, here it scores")
        return
    right, wrong = whole[len(RIGHT) - 1], whole[-1]
    if wrong - right > SWAPPED:
        raise PRMError(
            f"{name!r} scores a wrong solution {wrong:.3f} and a right one {right:.3f}: are its labels swapped, or is "
            "it of another family?"
        )


def _compare(name: str, got: Sequence[float], want: Sequence[float], ways: str) -> None:
    apart, ours, theirs = max((abs(a - b), a, b) for a, b in zip(got, want, strict=True))
    if apart > TOLERANCE:
        raise PRMError(
            f"{name!r} does not score as it should: a step that scores {theirs:.3f} {ways} {ours:.3f}. "
            "Is it served with another task, conversion, head or revision than its family's? Just above "
            f'{TOLERANCE} it may be the rounding of bfloat16 alone: then dtype = "float32" in engine_args, for an '
            "adapter, or prm_args helps."
        )


def _flat(scores: Sequence[tuple[float, ...]]) -> list[float]:
    return [score for those in scores for score in those]
