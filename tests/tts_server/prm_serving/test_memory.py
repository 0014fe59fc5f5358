"""Each beginning is read once, and what comes back is what the backend would say."""

import asyncio
from collections.abc import Sequence

import pytest
from prefixes import ByteFamily, PrefixBackend

from prm import OnTokens, PRMError
from prm.families.contract import Layout
from tts_server.prm_serving.memory import Remembered


def layout(*steps: str, question: str = "q") -> Layout:
    (only,) = ByteFamily().layouts(question, steps)
    return only


def read(remembered: Remembered, *layouts: Layout) -> list[tuple[float, ...]]:
    return asyncio.run(remembered.read(layouts))


def fresh(*layouts: Layout) -> list[tuple[float, ...]]:
    return asyncio.run(PrefixBackend().read(layouts))


def test_a_longer_solution_is_asked_for_its_new_step_only() -> None:
    backend = PrefixBackend()
    remembered = Remembered(backend)
    for steps in (["a"], ["a", "b"], ["a", "b", "c"]):
        assert read(remembered, layout(*steps)) == fresh(layout(*steps))
    assert [asked.ends for asked in backend.asked] == [(layout(*"abc"[: k + 1]).ends[-1],) for k in range(3)]


def test_what_is_known_is_not_asked_again() -> None:
    backend = PrefixBackend()
    remembered = Remembered(backend)
    read(remembered, layout("a", "b", "c"))
    backend.asked.clear()
    assert read(remembered, layout("a", "b"), layout("a", "b", "c")) == fresh(layout("a", "b"), layout("a", "b", "c"))
    assert backend.asked == []


def test_nothing_is_asked_behind_the_last_new_end() -> None:
    backend = PrefixBackend()
    remembered = Remembered(backend)
    read(remembered, Layout((1, 2, 3, 4), (3,)))
    read(remembered, Layout((1, 2, 3, 4), (1, 3)))
    assert backend.asked[-1] == Layout((1, 2), (1,))


def test_candidates_of_one_call_share_their_beginning() -> None:
    backend = PrefixBackend()
    layouts = [layout("a", "b", letter) for letter in "xyz"]
    assert read(Remembered(backend), *layouts) == fresh(*layouts)
    assert [len(asked.ends) for asked in backend.asked] == [3, 1, 1]


def test_other_questions_and_other_steps_are_other_beginnings() -> None:
    remembered = Remembered(PrefixBackend())
    layouts = [layout("a", "b"), layout("a", "b", question="r"), layout("ab"), layout("b", "a")]
    read(remembered, *layouts)
    assert read(remembered, *layouts) == fresh(*layouts)
    assert len(set(fresh(*layouts))) == 4


def test_those_asked_for_last_are_kept() -> None:
    backend = PrefixBackend()
    remembered = Remembered(backend, capacity=2)
    for step in ("a", "b", "a", "c"):
        read(remembered, layout(step))
    backend.asked.clear()
    read(remembered, layout("a"), layout("c"))
    assert backend.asked == []
    read(remembered, layout("b"))
    assert len(backend.asked) == 1


def test_what_a_call_needs_it_has_whatever_is_kept() -> None:
    steps = [f"step {k}" for k in range(9)]
    assert read(Remembered(PrefixBackend(), capacity=1), layout(*steps)) == fresh(layout(*steps))


def test_a_failure_is_not_remembered() -> None:
    class Failing(PrefixBackend):
        broken = True

        async def read(
            self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None
        ) -> list[tuple[float, ...]]:
            if self.broken:
                raise PRMError("gone")
            return await super().read(layouts, on_tokens=on_tokens)

    backend = Failing()
    remembered = Remembered(backend)
    with pytest.raises(PRMError, match="gone"):
        read(remembered, layout("a"))
    backend.broken = False
    assert read(remembered, layout("a")) == fresh(layout("a"))


def test_tokens_are_told_and_the_backend_lives_with_it() -> None:
    backend, tokens = PrefixBackend(), list[int]()
    remembered = Remembered(backend)

    async def main() -> None:
        await remembered.start()
        await remembered.read([layout("a")], on_tokens=tokens.append)
        await remembered.read([layout("a")], on_tokens=tokens.append)
        await remembered.close()

    asyncio.run(main())
    assert tokens == [len(layout("a").token_ids)]
    assert backend.life == ["start", "close"]
    assert remembered.max_len == backend.max_len


def test_a_beam_search_computes_at_least_five_times_fewer_tokens() -> None:
    """16 beams, 20 steps of 50 tokens: with a prefix cache, what is asked costs its new step."""
    steps = [f"{k:02} ".ljust(49, ".") for k in range(20)]
    full, incremental = 0, list[int]()
    remembered = Remembered(CachedBackend())
    for k in range(20):
        beams = [layout(*steps[:k], f"{beam:02}{steps[k]}", question="?" * 200) for beam in range(16)]
        full += sum(len(beam.token_ids) for beam in beams)
        asyncio.run(remembered.read(beams, on_tokens=incremental.append))
    assert full / sum(incremental) > 5


class CachedBackend(PrefixBackend):
    """Computes what no earlier prompt began with, in blocks of 16 tokens, as vLLM does."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: set[tuple[int, ...]] = set()

    async def read(self, layouts: Sequence[Layout], *, on_tokens: OnTokens | None = None) -> list[tuple[float, ...]]:
        for layout in layouts:
            beginnings = [layout.token_ids[:end] for end in range(16, len(layout.token_ids), 16)]
            cached = max((len(b) for b in beginnings if b in self._blocks), default=0)
            self._blocks.update(beginnings)
            if on_tokens:
                on_tokens(len(layout.token_ids) - cached)
        return await super().read(layouts)
