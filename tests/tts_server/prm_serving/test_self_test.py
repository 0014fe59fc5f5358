"""A backend that is run wrongly does not pass."""

import asyncio
from collections.abc import Sequence

import pytest
from prefixes import TAG, ByteFamily, PrefixBackend, drawn

from prm import OnTokens, PRMError
from prm.families.contract import Layout
from tts_server.prm_serving.self_test import QUESTION, RIGHT, WRONG, layouts_of, self_test

Scores = list[tuple[float, ...]]


def reference() -> Scores:
    return asyncio.run(PrefixBackend().read(layouts_of(ByteFamily())))


def passed(backend: PrefixBackend, given: Scores | None = None) -> None:
    asyncio.run(self_test("m", ByteFamily(), backend, given))


def test_the_model_itself_passes() -> None:
    passed(PrefixBackend(), reference())
    passed(PrefixBackend(lambda prefix: 0.6))


def test_a_little_rounding_passes() -> None:
    passed(PrefixBackend(lambda prefix: drawn(prefix) * 0.985), reference())


@pytest.mark.parametrize(
    "wrong",
    [
        PrefixBackend(lambda prefix: 1 - drawn(prefix)),
        PrefixBackend(lambda prefix: 0.5),
        PrefixBackend(lambda prefix: drawn(prefix) * 0.97),
    ],
)
def test_scores_that_are_not_the_reference_s_do_not(wrong: PrefixBackend) -> None:
    with pytest.raises(PRMError, match=r"'m' does not score as it should: .* in a plain forward pass, here it scores"):
        passed(wrong, reference())


def test_a_backend_that_scores_otherwise_step_by_step_does_not() -> None:
    class Whole(PrefixBackend):
        async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> Scores:
            return [tuple(drawn(layout.token_ids) for _ in layout.ends) for layout in layouts]

    with pytest.raises(PRMError, match="step by step, whole it scores"):
        passed(Whole())


def test_without_a_reference_swapped_labels_are_seen() -> None:
    def swapped(prefix: Sequence[int]) -> float:
        return 0.05 if bytes(token for token in prefix if token != TAG).count(b"36") else 0.95

    with pytest.raises(PRMError, match=r"a wrong solution 0\.950 and a right one 0\.050: are its labels swapped"):
        passed(PrefixBackend(swapped))
    passed(PrefixBackend(lambda prefix: 1 - swapped(prefix)))


def test_a_context_that_does_not_hold_the_test_is_said() -> None:
    backend = PrefixBackend()
    backend.max_len = 99
    with pytest.raises(PRMError, match="takes 99 tokens, too few for its self-test"):
        passed(backend)


def test_the_solutions_are_what_they_are_called() -> None:
    assert "12 eggs" in QUESTION
    assert 3 * 12 - 5 == 31
    assert "31" in RIGHT[-1]
    assert "31" not in WRONG[-1]
