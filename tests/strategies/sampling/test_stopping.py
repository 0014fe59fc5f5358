import pytest

from strategies.sampling.stopping import is_settled


@pytest.mark.parametrize(("confidence", "fewest"), [(0.9, [3, 5, 6, 8]), (0.95, [4, 6, 8, 9, 11]), (0.99, [6, 9, 11])])
def test_the_beta_rule_stops_where_the_integral_says(confidence: float, fewest: list[int]) -> None:
    def settled(first: int, second: int) -> bool:
        return is_settled(["a"] * first + ["b"] * second + [None], confidence)

    for second, first in enumerate(fewest):
        assert settled(first, second)
        assert not settled(first - 1, second)

    def integral(first: int, second: int, start: float) -> float:
        points = [start + (1 - start) * (i + 0.5) / 4000 for i in range(4000)]
        return sum(x**first * (1 - x) ** second for x in points) * (1 - start) / 4000

    for first in range(12):
        for second in range(first + 1):
            assert settled(first, second) == (integral(first, second, 0.5) / integral(first, second, 0) >= confidence)


def test_the_beta_rule_counts_the_two_leading_answers_only() -> None:
    assert is_settled(["a", "b", "a", "c", None, "a", "a", "a", "a"], 0.95)
    assert not is_settled([None, None, None, None, None], 0.6)
    assert not is_settled([], 0.6)
    assert is_settled(["a"] * 3000 + ["b"] * 1000, 0.999)
