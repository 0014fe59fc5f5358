"""Whose turn it is."""

from hypothesis import given
from hypothesis import strategies as st

from tts_server.turns import Share, Turns


def turn(turns: Turns[Share], cost: float = 1.0) -> Share:
    """Gives whoever is next its turn; it goes on waiting for another."""
    share = turns.next()
    turns.charge(share, cost)
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


def test_who_costs_more_comes_less_often() -> None:
    turns = Turns[Share]()
    waiting(turns)
    large = waiting(turns)
    seen = []
    for _ in range(12):
        share = turns.next()
        turns.charge(share, 3.0 if share is large else 1.0)
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
    turns.charge(busy, 1.0)
    turns.correct(busy, 1000.0)
    turns.begin(busy)
    turns.waiting[busy] = None
    other = waiting(turns)
    seen = [turn(turns) for _ in range(10)]
    assert abs(seen.count(busy) - seen.count(other)) <= 1


def test_an_estimate_is_made_good_once_the_cost_is_known() -> None:
    turns = Turns[Share]()
    cheap, dear = waiting(turns), waiting(turns)
    turns.charge(cheap, 10.0)
    turns.charge(dear, 10.0)
    turns.correct(cheap, -9.0)
    turns.correct(dear, 9.0)
    assert (cheap.served, dear.served) == (1.0, 19.0)
    assert turns.next() is cheap


@given(st.integers(1, 20), st.floats(1.0, 50.0), st.floats(0.1, 1.0))
def test_no_stream_of_new_ones_keeps_an_old_one_waiting_for_ever(crowd: int, behind: float, cost: float) -> None:
    turns = Turns[Share]()
    old = waiting(turns)
    turns.charge(old, behind)
    for _ in range(crowd):
        waiting(turns)
    grants = 0
    while (share := turns.next()) is not old:
        grants += 1
        assert grants <= (behind / cost + 2) * (crowd + 1) + crowd
        turns.charge(share, cost)
        # Each new one wants a single turn, and the next comes at once.
        del turns.waiting[share]
        waiting(turns)
