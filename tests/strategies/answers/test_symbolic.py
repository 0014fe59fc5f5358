import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import NEVER_S
from virtual_time import in_virtual_time

from strategies import answers
from strategies.answers import canonical, symbolic

HANGING = r"\binom{10^{9}}{10^{8}}"


def children() -> set[int]:
    """The running workers that this process started, zombies left out."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == os.getpid() and state != "Z" and b"symbolic" in command:
            found.add(int(stat.parent.name))
    return found


def test_equal_values_share_a_key() -> None:
    async def main() -> list[str | None]:
        return await asyncio.gather(*map(symbolic.key, [r"\sqrt{8}", r"2\sqrt{2}", r"\sqrt{7}"]))

    one, same, other = asyncio.run(main())
    assert one == same != other
    assert one is not None


def test_gold_comes_first() -> None:
    async def main() -> tuple[bool, bool]:
        return await symbolic.equal("x > 2", r"(2,\infty)"), await symbolic.equal(r"(2,\infty)", "x > 2")

    assert asyncio.run(main()) == (True, False)


@pytest.mark.parametrize("latex", ["", r"\frac{", "}", r"\begin{pmatrix} 1", "\ud800", "\0", r"\frac{0}{0}"])
def test_what_cannot_be_read_has_no_key(latex: str) -> None:
    assert asyncio.run(symbolic.key(latex)) is None


def test_an_expression_that_hangs_is_killed_and_the_next_one_is_read() -> None:
    async def main() -> tuple[str | None, bool, str | None]:
        return await symbolic.key(HANGING), await symbolic.equal("1", f"{HANGING}+1"), await symbolic.key("3!")

    assert asyncio.run(main()) == (None, False, "6")


def test_expressions_that_hang_delay_no_other() -> None:
    """Without a limit of time: more of them than processes, and the others are read while they hang."""

    async def main() -> list[str | None]:
        hanging = [asyncio.create_task(symbolic.key(f"{HANGING}+{i}")) for i in range(100, 108)]
        read = await asyncio.gather(*(symbolic.key(rf"\sqrt{{{n}}}") for n in (18, 32, 50)))
        assert not all(task.done() for task in hanging)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        return read

    read = asyncio.run(main())
    assert None not in read
    assert len(set(read)) == 3


def test_powers_that_nobody_can_work_out_are_refused_at_once() -> None:
    async def main() -> list[str | None]:
        return await asyncio.gather(*map(symbolic.key, ["10^{10^{10^{10}}}", "9^{9^{8}}", "8^{8^{9}}", "30000!"]))

    before = children()
    assert asyncio.run(main()) == [None] * 4
    assert len(children() - before) <= 1


def test_a_worker_that_somebody_ends_is_started_again() -> None:
    assert asyncio.run(symbolic.key("2^{11}")) == "2048"
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert [asyncio.run(symbolic.key(f"2^{{{n}}}")) for n in (12, 13, 14)] == ["4096", "8192", "16384"]


def test_the_start_takes_no_part_of_a_votes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def starts() -> None:
        await asyncio.sleep(3 * answers.VOTE_S)

    async def reads(latex: str) -> str:
        await asyncio.sleep(answers.VOTE_S / 2)
        return "read"

    monkeypatch.setattr(symbolic, "start", starts)
    monkeypatch.setattr(symbolic, "key", reads)
    assert in_virtual_time(canonical([r"\sqrt{x}", r"\sqrt{y}"])) == ["read", "read"]
    assert in_virtual_time(canonical([r"\sqrt{x}"], within_s=answers.VOTE_S)) == [r"\sqrt{x}"]


def test_a_vote_does_not_wait_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reads(latex: str) -> str:
        await asyncio.sleep(3600 if "y" in latex else 0)
        return "read"

    monkeypatch.setattr(symbolic, "key", reads)
    assert in_virtual_time(canonical([r"\sqrt{y}", r"\sqrt{x}"])) == [r"\sqrt{y}", "read"]


def test_a_cancelled_call_leaves_the_workers_usable() -> None:
    async def main() -> str | None:
        calls = [asyncio.create_task(symbolic.key(f"{HANGING}+{i}")) for i in range(3)]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        return await symbolic.key("4!")

    assert asyncio.run(main()) == "24"


def test_a_second_event_loop_uses_the_same_workers() -> None:
    assert asyncio.run(symbolic.key("5!")) == "120"
    before = children()
    assert asyncio.run(symbolic.key("6!")) == "720"
    assert len(children() - before) <= 1


def test_a_loop_that_closes_during_a_call_breaks_nothing() -> None:
    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(symbolic.key(f"{HANGING}+7"), 0.01)

    asyncio.run(leave())
    assert asyncio.run(symbolic.key("7!")) == "5040"


PROGRAM = """
import asyncio, os
from pathlib import Path
from strategies.answers import symbolic
print(asyncio.run(symbolic.key("2^{10}")))
print(*(task.read_text() for task in Path("/proc/self/task").glob("*/children")), flush=True)
"""


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_no_worker_outlives_the_interpreter(ending: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM + ending]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    key, workers = result.stdout.splitlines()
    assert (key, result.stderr) == ("1024", "")
    assert workers.split()
    for pid in workers.split():
        until = time.monotonic() + NEVER_S
        while time.monotonic() < until:
            if not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes():
                break
            time.sleep(0.01)
        else:
            pytest.fail(f"worker {pid} is still there")


def test_the_registry_imports_no_algebra() -> None:
    code = "import sys; from strategies import registry; registry(); print({'sympy', 'math_verify'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
