"""The tree of kept states, on states that say which token they are of."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.backend.kv_cache import KVCache

torch: Any = pytest.importorskip("torch")

LAYERS, HEADS, SIZE = 2, 1, 4
TOKEN_BYTES = LAYERS * 2 * HEADS * SIZE * 4


def states(ids: tuple[int, ...]) -> Any:
    """Each token's state is a number of its own that depends on all before it."""
    sums = torch.tensor([float(hash(ids[: i + 1]) % 10_007) for i in range(len(ids))])
    return sums[:, None].expand(LAYERS, 2, HEADS, len(ids), SIZE)


def add(cache: KVCache, ids: tuple[int, ...], **scores: float) -> None:
    kept = cache.find(ids).length
    cache.add(ids, kept, states(ids)[..., kept:, :], {int(key[1:]): score for key, score in scores.items()})


def test_nothing_is_kept_of_what_was_never_added() -> None:
    assert KVCache(1000).find((1, 2)) == (0, {})


def test_a_beginning_is_shared_and_scores_stand_where_they_were_read() -> None:
    cache = KVCache(10**6)
    add(cache, (1, 2, 3, 4), _1=0.1, _3=0.3)
    add(cache, (1, 2, 5), _2=0.2)
    assert cache.nbytes == 5 * TOKEN_BYTES
    assert cache.find((1, 2, 3, 4, 9)) == (4, {1: 0.1, 3: 0.3})
    assert cache.find((1, 2, 5)) == (3, {1: 0.1, 2: 0.2})
    assert cache.find((1, 2, 3)) == (3, {1: 0.1})
    assert cache.find((2,)) == (0, {})


sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=12)


@given(sequences, st.integers(0, 30))
def test_what_is_kept_is_what_was_added(added: list[tuple[int, ...]], tokens: int) -> None:
    cache = KVCache(tokens * TOKEN_BYTES)
    for ids in added:
        add(cache, ids, **{f"_{len(ids) - 1}": len(ids) / 10})
        assert cache.nbytes <= tokens * TOKEN_BYTES
    for ids in added:
        length, scores = cache.find(ids)
        if length:
            assert torch.equal(cache.states(ids, length), states(ids[:length]))
        assert all(score == (k + 1) / 10 and k < length for k, score in scores.items())
    if tokens == 30:
        assert cache.find(added[-1]).length == len(added[-1])


@given(sequences)
def test_what_fits_is_all_kept_once(added: list[tuple[int, ...]]) -> None:
    cache = KVCache(10**6)
    for ids in added:
        add(cache, ids)
    assert all(cache.find(ids).length == len(ids) for ids in added)
    assert cache.nbytes == TOKEN_BYTES * len({ids[: i + 1] for ids in added for i in range(len(ids))})


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = KVCache(6 * TOKEN_BYTES)
    add(cache, (1, 1, 1))
    add(cache, (2, 2, 2))
    cache.find((1, 1, 1))
    add(cache, (3, 3))
    assert [cache.find(ids).length for ids in ((1, 1, 1), (2, 2, 2), (3, 3))] == [3, 0, 2]


def test_states_whose_beginning_was_dropped_are_not_kept() -> None:
    cache = KVCache(10**6)
    cache.add((1, 2, 3), 2, states((1, 2, 3))[..., 2:, :], {2: 0.5})
    assert cache.find((1, 2, 3)) == (0, {})
    assert cache.nbytes == 0


def test_scores_can_be_added_to_what_is_kept() -> None:
    cache = KVCache(10**6)
    add(cache, (1, 2, 3))
    add(cache, (1, 2, 3), _1=0.5)
    assert cache.find((1, 2, 3)) == (3, {1: 0.5})
