"""Which call is let in next: the exact order, and what holds whatever happens."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import NEVER_S

from strategies.core.contracts import Chunk
from tts_server.admission import queue as module
from tts_server.admission.queue import Admission, Flow, Permit

TOKENS = 64
"""Of a sample, as many as the admission expects of it."""


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def ticks(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def ended(index: int = 0, tokens: int = TOKENS) -> Chunk:
    return Chunk(index, completion_tokens=tokens, finish_reason="eos")


class Queue:
    """Calls that wait, and those that were let in, in order."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.admission = Admission(limit, **options)
        self.let_in: list[str] = []
        self.permits: dict[str, Permit] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(self, name: str, flow: Flow, n: int = 1) -> None:
        async def wait() -> None:
            self.permits[name] = await flow.take(n)
            self.let_in.append(name)

        self.tasks[name] = asyncio.create_task(wait())
        await ticks()

    async def end(self, name: str, samples: int = 1, tokens: int = TOKENS) -> None:
        for index in range(samples):
            self.permits[name].count(ended(index, tokens))
        await ticks()


def test_while_there_is_room_nobody_waits() -> None:
    async def main() -> None:
        queue = Queue(3)
        flow = queue.admission.flow("")
        permits = [await flow.take(1) for _ in range(3)]
        assert (queue.admission.live, queue.admission.waiting, queue.admission.has_room) == (3, 0, False)
        for permit in permits:
            permit.close()
            permit.close()
        assert (queue.admission.live, queue.admission.permits) == (0, set())

    run(main())


def test_one_large_search_does_not_go_before_many_small_requests() -> None:
    async def main() -> None:
        queue = Queue(4)
        admission = queue.admission
        search = admission.flow("team")
        for step in range(8):
            await queue.call(f"search {step}", search, 4)
        for number in range(6):
            await queue.call(f"single {number}", admission.flow("team"))
        assert queue.let_in == ["search 0"]
        assert (admission.live, admission.waiting, admission.waiting_calls) == (4, 7 * 4 + 6, 13)
        # It has had four samples, and each of the others none.
        await queue.end("search 0", 4)
        assert queue.let_in[1:] == [f"single {number}" for number in range(4)]
        for number in range(3):
            await queue.end(f"single {number}")
        assert queue.let_in[5:] == ["single 4", "single 5", "search 1"]

    run(main())


def test_owners_share_the_engine_whatever_they_ask_for() -> None:
    async def main() -> None:
        queue = Queue(2)
        admission = queue.admission
        await queue.call("first", admission.flow("greedy"), 2)
        for number in range(20):
            await queue.call(f"greedy {number}", admission.flow("greedy"), 2)
        for number in range(4):
            await queue.call(f"modest {number}", admission.flow("modest"), 2)
        await queue.end("first", 2)
        for _ in range(7):
            await queue.end(queue.let_in[-1], 2)
        assert [name.split()[0] for name in queue.let_in[1:]] == ["modest", "greedy"] * 4

    run(main())


def test_tokens_count_and_not_calls() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        await queue.call("first", admission.flow("other"))
        for number in range(12):
            await queue.call(f"long {number}", admission.flow("long"))
            await queue.call(f"short {number}", admission.flow("short"))
        await queue.end("first")
        seen = []
        for _ in range(12):
            name = queue.let_in[-1]
            seen.append(name.split()[0])
            await queue.end(name, tokens=400 if name.startswith("long") else 100)
        assert seen.count("short") in range(8, 11)

    run(main())


def test_prompt_tokens_that_were_computed_count_too() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        await queue.call("first", admission.flow("x"))
        for number in range(2):
            await queue.call(f"long {number}", admission.flow("long"))
        await queue.call("cached", admission.flow("cached"))
        await queue.call("cached 1", admission.flow("cached"))
        await queue.end("first")
        assert queue.let_in[-1] == "long 0"
        queue.permits["long 0"].count(Chunk(0, prompt_tokens=4000, finish_reason="eos"))
        await ticks()
        assert queue.let_in[-1] == "cached"
        queue.permits["cached"].count(Chunk(0, prompt_tokens=4000, cached_tokens=3999, finish_reason="eos"))
        await ticks()
        assert queue.let_in[-1] == "cached 1"

    run(main())


def test_the_lines_of_batches_come_after_everybody() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        await queue.call("first", admission.flow("a"))
        await queue.call("line", admission.flow("a", batch=True))
        await queue.call("line of another", admission.flow("b", batch=True))
        for number in range(3):
            await queue.call(f"asked {number}", admission.flow("a"))
        for _ in range(5):
            await queue.end(queue.let_in[-1])
        assert queue.let_in == ["first", "asked 0", "asked 1", "asked 2", "line", "line of another"]

    run(main())


def test_a_call_larger_than_all_there_is_gets_through_whole() -> None:
    async def main() -> None:
        queue = Queue(4)
        await queue.call("large", queue.admission.flow(""), 64)
        assert queue.let_in == ["large"]
        assert queue.admission.live == 64
        await queue.call("small", queue.admission.flow(""))
        await queue.end("large", 60)
        assert queue.let_in == ["large"]
        await queue.end("large")
        assert queue.let_in == ["large", "small"]

    run(main())


def test_who_is_cancelled_leaves_nothing() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        await queue.call("first", admission.flow(""))
        for name in "abc":
            await queue.call(name, admission.flow(name))
        queue.tasks["b"].cancel()
        queue.permits["first"].close()
        await ticks()
        # Cancelled, and not told so yet when it is its turn.
        queue.tasks["c"].cancel()
        queue.permits["a"].close()
        await ticks()
        assert queue.let_in == ["first", "a"]
        assert (admission.live, admission.waiting, admission.waiting_calls, admission.permits) == (0, 0, 0, set())

    run(main())


def test_who_is_cancelled_with_the_permit_on_its_way_gives_it_back() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        await queue.call("first", admission.flow(""))
        await queue.call("late", admission.flow(""))
        queue.permits["first"].close()
        assert admission.live == 1
        queue.tasks["late"].cancel()
        await ticks()
        assert (admission.live, admission.permits) == (0, set())
        assert queue.let_in == ["first"]

    run(main())


def test_who_does_not_read_lends_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.01)

    async def main() -> None:
        queue = Queue(2)
        admission = queue.admission
        await queue.call("slow", admission.flow("slow"), 2)
        slow = queue.permits["slow"]
        slow.count(Chunk(0, completion_tokens=1))
        await queue.call("next", admission.flow("next"))
        await asyncio.wait_for(queue.tasks["next"], NEVER_S)
        assert admission.live == 1
        slow.resume()
        assert admission.live == 3
        slow.count(ended())
        slow.close()
        assert admission.live == 1
        queue.permits["next"].close()
        assert (admission.live, admission.permits) == (0, set())

    run(main())


def test_who_waits_for_the_engine_lends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.005)

    async def main() -> None:
        queue = Queue(1)
        await queue.call("first", queue.admission.flow("a"))
        queue.permits["first"].count(Chunk(0, completion_tokens=1))
        queue.permits["first"].resume()
        await queue.call("second", queue.admission.flow("b"))
        await asyncio.sleep(0.05)
        assert queue.let_in == ["first"]
        queue.tasks["second"].cancel()

    run(main())


def test_who_has_filled_the_queue_keeps_nobody_else_out() -> None:
    async def main() -> None:
        queue = Queue(1, max_waiting=4)
        admission = queue.admission
        for number in range(5):
            await queue.call(f"large {number}", admission.flow("large"))
        assert admission.is_full("large")
        # Half of four is theirs, as long as two want some.
        for number in range(2):
            assert not admission.is_full("small")
            await queue.call(f"small {number}", admission.flow("small"))
        assert admission.is_full("small")
        assert admission.is_full("large")
        assert not admission.is_full("third")
        for name in ["large 0", "small 0"]:
            await queue.end(name)
        assert not admission.is_full("small")

    run(main())


def test_a_full_queue_says_when_it_will_have_drained() -> None:
    now = [0.0]

    async def main() -> None:
        queue = Queue(1, max_waiting=4, clock=lambda: now[0])
        admission = queue.admission
        waits: list[float] = []
        admission.on_wait = waits.append
        await queue.call("0", admission.flow("0"))
        assert admission.retry_after_s == 5
        for number in range(1, 5):
            assert not admission.is_full("0")
            await queue.call(str(number), admission.flow("0"))
        assert admission.is_full("0")
        now[0] = 2.0
        await queue.end("0")
        # One sample in two seconds, and three that wait.
        assert admission.retry_after_s == 6
        assert waits == [2.0]

    run(main())


STEPS = st.lists(
    st.tuples(st.sampled_from(["call", "end", "close", "cancel"]), st.integers(0, 7), st.integers(1, 9)), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), STEPS)
def test_no_permit_leaks_and_nobody_waits_while_there_is_room(limit: int, steps: list[tuple[str, int, int]]) -> None:
    async def main() -> None:
        queue = Queue(limit)
        admission = queue.admission
        left: dict[str, int] = {}
        largest = 0
        for number, (kind, who, n) in enumerate(steps):
            names = [name for name in queue.let_in if left.get(name, 1)]
            if kind == "call":
                name = f"{number}"
                left[name] = n
                largest = max(largest, n)
                await queue.call(name, admission.flow(f"owner {who % 3}", batch=who == 7), n)
            elif kind == "cancel" and (waiting := [t for t in queue.tasks.values() if not t.done()]):
                waiting[who % len(waiting)].cancel()
                await ticks()
            elif names and kind in ("end", "close"):
                name = names[who % len(names)]
                if kind == "end":
                    left[name] -= 1
                    await queue.end(name, tokens=n)
                else:
                    left[name] = 0
                if not left[name]:
                    queue.permits[name].close()
                    await ticks()
            assert admission.live == sum(left[name] for name in queue.let_in)
            assert admission.live < limit + max(largest, 1)
            assert not admission.waiting or admission.live >= limit
        while any(left[name] for name in queue.let_in):
            name = next(name for name in queue.let_in if left[name])
            left[name] = 0
            queue.permits[name].close()
            await ticks()
        # Whoever was not cancelled has had its turn.
        assert all(task.done() for task in queue.tasks.values())
        assert (admission.live, admission.waiting, admission.waiting_calls, admission.permits) == (0, 0, 0, set())

    asyncio.run(main())


def test_a_search_gets_on_under_an_endless_stream_of_new_requests() -> None:
    async def main() -> None:
        queue = Queue(1)
        admission = queue.admission
        search = admission.flow("team")
        await queue.call("search 0", search, 8)
        await queue.call("search 1", search, 8)
        for number in range(3):
            await queue.call(f"{number}", admission.flow("team"))
        await queue.end("search 0", 8)
        for number in range(3, 200):
            if queue.let_in[-1] == "search 1":
                break
            await queue.call(f"{number}", admission.flow("team"))
            await queue.end(queue.let_in[-1])
        assert queue.let_in[-1] == "search 1"
        for task in queue.tasks.values():
            task.cancel()
        await asyncio.gather(*queue.tasks.values(), return_exceptions=True)

    run(main())
