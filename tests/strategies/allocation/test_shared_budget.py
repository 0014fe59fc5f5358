"""The shared budget against all ways to spend it, and the chances that it goes by against enumeration."""

from fractions import Fraction
from itertools import pairwise, product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as some

from strategies.allocation.shared_budget import Increment, Point, SharedBudget, hull, increments, settled

GAINS = some.lists(some.integers(0, 40), min_size=0, max_size=4).map(lambda gains: sorted(gains, reverse=True))
CURVES = some.lists(GAINS, min_size=1, max_size=4)
POINTS = some.lists(some.tuples(some.integers(1, 30), some.integers(0, 30)), min_size=1, max_size=12)


def steps(gains: list[int], tokens: int = 1) -> list[Increment]:
    return [Increment(gain / 100, tokens) for gain in gains]


def value(questions: list[list[Increment]], bought: tuple[int, ...]) -> float:
    return sum(i.gain for question, n in zip(questions, bought, strict=True) for i in question[:n])


def cost(questions: list[list[Increment]], bought: tuple[int, ...]) -> float:
    return sum(i.tokens for question, n in zip(questions, bought, strict=True) for i in question[:n])


def allocate(questions: list[list[Increment]], tokens: float) -> list[int]:
    """How many increments each question gets, if each costs what is expected."""
    budget, bought = SharedBudget(tokens), [0] * len(questions)
    for number, question in enumerate(questions):
        if question:
            budget.offer(number, question[0])
    while offer := budget.buy():
        number, increment = offer
        budget.pay(increment.reserve, increment.tokens)
        bought[number] += 1
        if bought[number] < len(questions[number]):
            budget.offer(number, questions[number][bought[number]])
    return bought


def every_way(questions: list[list[Increment]], tokens: float) -> list[tuple[int, ...]]:
    ways = product(*(range(len(question) + 1) for question in questions))
    return [way for way in ways if cost(questions, way) <= tokens]


@given(CURVES, some.integers(0, 12))
def test_with_one_price_no_way_to_spend_the_budget_is_better(curves: list[list[int]], tokens: int) -> None:
    questions = [steps(gains) for gains in curves]
    found = tuple(allocate(questions, tokens))
    assert cost(questions, found) <= tokens
    assert value(questions, found) == pytest.approx(max(value(questions, w) for w in every_way(questions, tokens)))


@given(CURVES, some.lists(some.integers(1, 5), min_size=4, max_size=4), some.integers(0, 30))
def test_with_several_prices_none_is_better_by_more_than_one_increment(
    curves: list[list[int]], prices: list[int], tokens: int
) -> None:
    questions = [steps(gains, price) for gains, price in zip(curves, prices, strict=False)]
    found = tuple(allocate(questions, tokens))
    spent = cost(questions, found)
    assert spent <= tokens
    best = max(value(questions, way) for way in every_way(questions, tokens))
    largest = max((i.gain for question in questions for i in question), default=0.0)
    assert value(questions, found) >= best - largest - 1e-9


def test_equals_are_served_in_the_order_of_the_questions() -> None:
    assert allocate([steps([10]), steps([10]), steps([10])], 2) == [1, 1, 0]


def test_what_does_not_fit_leaves_room_for_what_does() -> None:
    assert allocate([[Increment(0.9, 10)], [Increment(0.1, 3)]], 5) == [0, 1]


def test_what_gains_nothing_is_not_bought() -> None:
    assert allocate([steps([0, 0]), steps([5, 0])], 10) == [0, 1]


def test_an_increment_that_is_free_is_refused() -> None:
    with pytest.raises(ValueError, match="costs more than 0 tokens"):
        allocate([[Increment(0.1, 0)]], 10)


@given(CURVES, some.lists(some.integers(0, 3), min_size=20, max_size=20), some.integers(0, 30))
def test_a_budget_is_never_exceeded_if_no_increment_costs_more_than_its_most(
    curves: list[list[int]], costs: list[int], tokens: int
) -> None:
    queues = [[Increment(gain / 100, 1.5, most=3) for gain in gains] for gains in curves]
    budget, real = SharedBudget(tokens), iter(costs)
    for number, queue in enumerate(queues):
        if queue:
            budget.offer(number, queue.pop(0))
    under_way = []
    while True:
        if offer := budget.buy():
            under_way.append(offer)
        elif not under_way:
            break
        if len(under_way) > 2 or not offer:
            paid = under_way.pop(0)
            budget.pay(paid.increment.reserve, next(real))
            if queues[paid.question]:
                budget.offer(paid.question, queues[paid.question].pop(0))
        assert budget.left >= 0
    assert budget.spent <= tokens


def test_what_is_too_large_now_is_bought_when_less_was_paid_than_reserved() -> None:
    budget = SharedBudget(10)
    budget.offer(0, Increment(0.5, 5, most=8))
    budget.offer(1, Increment(0.4, 5, most=8))
    first = budget.buy()
    assert first is not None
    assert (first.question, budget.buy(), budget.left) == (0, None, 2)
    budget.pay(first.increment.reserve, 1)
    second = budget.buy()
    assert second is not None
    assert second.question == 1


@given(POINTS)
def test_the_hull_is_above_every_point_and_concave(pairs: list[tuple[int, int]]) -> None:
    points = [Point(float(tokens), accuracy / 30) for tokens, accuracy in pairs]
    kept = [points[i] for i in hull(points)]
    rates = [i.gain / i.tokens for i in increments(kept)]
    assert rates == sorted(rates, reverse=True)
    assert all(rate > 0 for rate in rates)
    assert kept[0].tokens == min(p.tokens for p in points)
    assert kept[-1].accuracy == max(p.accuracy for p in points)
    assert all(point.accuracy <= height(kept, point.tokens) + 1e-9 for point in points)


def height(kept: list[Point], tokens: float) -> float:
    """Of the hull above a cost."""
    for here, there in pairwise(kept):
        if tokens <= there.tokens:
            share = (tokens - here.tokens) / (there.tokens - here.tokens)
            return here.accuracy + share * (there.accuracy - here.accuracy)
    return kept[-1].accuracy


def test_of_points_in_a_line_only_the_ends_are_kept() -> None:
    assert hull([Point(1, 0.25), Point(2, 0.5), Point(3, 0.75)]) == [0, 2]


@pytest.mark.parametrize(("first", "second"), [(1, 0), (4, 0), (3, 1), (2, 2), (6, 1)])
@pytest.mark.parametrize("more", [0, 1, 4, 7])
def test_a_vote_to_come_is_as_sure_as_all_its_outcomes(first: int, second: int, more: int) -> None:
    assert settled(first, second, more) == pytest.approx(float(by_counting(first, second, more)))


def by_counting(first: int, second: int, more: int) -> Fraction:
    """The same by single votes: the next is for an answer as often as it has votes, and one more (Laplace)."""
    if not more:
        votes = first + second + 1
        behind = Fraction(sum(comb(votes, k) for k in range(min(first, second) + 1)), 2**votes)
        return 1 - behind
    total = first + second + 2
    return Fraction(first + 1, total) * by_counting(first + 1, second, more - 1) + Fraction(
        second + 1, total
    ) * by_counting(first, second + 1, more - 1)


def test_more_votes_never_make_it_less_sure() -> None:
    for first, second in ((1, 0), (2, 1), (3, 3), (5, 2)):
        chances = [settled(first, second, more) for more in range(9)]
        assert all(later >= earlier - 1e-12 for earlier, later in pairwise(chances))
