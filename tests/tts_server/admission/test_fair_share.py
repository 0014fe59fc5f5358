"""Whose turn it is."""

from hypothesis import given
from hypothesis import strategies as st

from tts_server.admission.fair_share import Share, Turns


def turn(turns: Turns[Share], cost: float = 1.0) -> Share:
    """Gives whoever is next its turn; it goes on waiting for another."""
    share = turns.next(cost)
    share.live += 1
    turns.settle(share, 1, cost)
    return share


def waiting(turns: Turns[Share]) -> Share:
    share = Share()
    turns.begin(share)
    turns.waiting[share] = None
    return share


def test_turns_go_round_in_the_order_of_arrival() -> None:
    turns = Turns[Share]()
    shares = [waiting(turns) for _ in range(3)]
    assert [turn(turns) for _ in range(6)] == shares * 2


def test_turns_that_are_not_over_count_as_well() -> None:
    turns = Turns[Share]()
    shares = [waiting(turns) for _ in range(3)]
    seen = []
    for _ in range(6):
        seen.append(turns.next(10.0))
        seen[-1].live += 1
    assert seen == shares * 2
    turns.settle(shares[1], 1, 1.0)
    assert turns.next(10.0) is shares[1]


def test_who_costs_more_comes_less_often() -> None:
    turns = Turns[Share]()
    waiting(turns)
    large = waiting(turns)
    seen = []
    for _ in range(12):
        share = turns.next(1.0)
        share.live += 1
        turns.settle(share, 1, 3.0 if share is large else 1.0)
        seen.append("large" if share is large else "small")
    assert seen == ["small", "large", "small", "small"] * 3


def test_unused_turns_are_not_saved_up() -> None:
    turns = Turns[Share]()
    busy = waiting(turns)
    for _ in range(100):
        turn(turns)
    late = waiting(turns)
    seen = [turn(turns) for _ in range(10)]
    assert abs(seen.count(busy) - seen.count(late)) <= 1


def test_what_was_used_while_nobody_else_wanted_it_is_not_held_against_anybody() -> None:
    turns = Turns[Share]()
    busy = Share()
    turns.begin(busy)
    busy.live = 1
    turns.settle(busy, 1, 1000.0)
    turns.begin(busy)
    turns.waiting[busy] = None
    other = waiting(turns)
    seen = [turn(turns) for _ in range(10)]
    assert abs(seen.count(busy) - seen.count(other)) <= 1


@given(st.integers(1, 20), st.floats(1.0, 50.0), st.floats(0.1, 1.0))
def test_no_stream_of_new_ones_keeps_an_old_one_waiting_for_ever(crowd: int, behind: float, cost: float) -> None:
    turns = Turns[Share]()
    old = waiting(turns)
    for _ in range(crowd):
        waiting(turns)
    old.live = 1
    turns.settle(old, 1, behind)
    grants = 0
    while (share := turns.next(cost)) is not old:
        grants += 1
        assert grants <= (behind / cost + 2) * (crowd + 1) + crowd
        share.live += 1
        turns.settle(share, 1, cost)
        # Each new one wants a single turn, and the next comes at once.
        del turns.waiting[share]
        waiting(turns)
