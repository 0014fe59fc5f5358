import math

import pytest

from prm import PRMError
from prm.families.contract import Classes, Head, LabelTokens, Sigmoid
from tts_server.prm_serving.heads import score, width


@pytest.mark.parametrize(
    ("head", "values", "expected"),
    [
        (Classes(right=1), [1.0, 3.0], math.exp(3) / (math.exp(1) + math.exp(3))),
        (Classes(right=0), [1.0, 3.0], math.exp(1) / (math.exp(1) + math.exp(3))),
        (Sigmoid(), [0.0], 0.5),
        (Sigmoid(), [2.0], 1 / (1 + math.exp(-2))),
        (Sigmoid(), [-1000.0], 0.0),
        (Classes(right=1), [-900.0, 900.0], 1.0),
    ],
)
def test_the_activation_is_the_family_s(head: Head, values: list[float], expected: float) -> None:
    assert score(head, values) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("head", "values", "said"),
    [
        (Classes(right=1), [0.1] * 64, "gives 64 numbers at a token, where its family has 2"),
        (Sigmoid(), [0.1, 0.2], "gives 2 numbers at a token, where its family has 1"),
        (Sigmoid(), [math.nan], "which is no score"),
        (Classes(right=1), [math.inf, 0.0], "which is no score"),
    ],
)
def test_what_is_no_head_s_is_an_error(head: Head, values: list[float], said: str) -> None:
    with pytest.raises(PRMError, match=said):
        score(head, values)


def test_labels_are_not_pooled() -> None:
    with pytest.raises(PRMError, match="by generating, not by pooling"):
        width(LabelTokens(1, 2))
