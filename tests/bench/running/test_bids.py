"""What a question would buy next, from its votes and from a table."""

from collections.abc import Sequence

import pytest

from bench.running.bids import Bidder, Known
from strategies.allocation.difficulty import Attempt
from strategies.core.contracts import Selector


def known(keys: Sequence[str | None], tokens: float = 10.0) -> Known:
    return Known([Attempt(key, 10, truncated=False) for key in keys], len(keys), tokens)


def bid(keys: Sequence[str | None], selector: Selector = "majority", samples: int = 32) -> float:
    """The gain a token of the next bid; 0 without one."""
    found = Bidder(selector, samples)(known(keys), 20.0, 99)
    return found.increment.gain / found.increment.tokens if found else 0.0


def test_votes_that_differ_buy_before_votes_that_agree() -> None:
    assert bid("aabb") > bid("aaab") > bid("aaaa") > 0


def test_where_no_two_agree_the_vote_is_not_trusted() -> None:
    assert bid("abcd") < bid("aabb")


def test_what_is_already_sure_gains_ever_less() -> None:
    gains = [bid("a" * n) for n in (2, 4, 8, 16)]
    assert gains == sorted(gains, reverse=True)


def test_a_verifier_gains_most_where_one_sample_is_seldom_right_and_not_never() -> None:
    assert bid("abcd", "best") > bid("aaaa", "best") > 0


@pytest.mark.parametrize("keys", ["a" * 8, "ab" * 4])
def test_there_is_no_bid_beyond_the_most_samples(keys: str) -> None:
    assert Bidder("majority", 8)(known(keys), 20.0, 99) is None
    found = Bidder("majority", 10)(known(keys), 20.0, 99)
    assert found is None or found.samples <= 2


def test_there_is_no_bid_for_more_than_can_be_paid() -> None:
    assert Bidder("majority", 32)(known("aabb"), 20.0, 0) is None
    found = Bidder("majority", 32)(known("aabb"), 20.0, 3)
    assert found is not None
    assert found.samples <= 3


def test_a_bid_reserves_the_most_that_its_samples_can_cost() -> None:
    found = Bidder("majority", 32)(known("aabb"), 20.0, 99)
    assert found is not None
    assert found.increment.tokens == 10 * found.samples
    assert found.increment.reserve == 20 * found.samples


def test_without_an_attempt_there_is_no_bid() -> None:
    assert Bidder("majority", 8)(Known([], 4, 0.0), 20.0, 99) is None
