"""What libraries write while an engine loads."""

import contextvars
import os
import subprocess
import sys

import pytest
from patience import NEVER_S

from tts_server.engines.vllm_parts import host as vllm_host
from tts_server.errors import EngineUnavailable
from tts_server.raw_output import cause_in, held

SCRIPT = """
import os, subprocess, sys
from tts_server.raw_output import captured, held

held.set(sys.argv[1] == "held")
child = "import sys; print('early', flush=True); sys.stdin.readline(); print('late', flush=True)"
with captured() as raw:
    os.write(2, b"warning\\n")
    print("library", file=sys.stderr)
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    while sys.argv[1] == "held" and "early" not in raw.lines:
        pass
print("ours", file=sys.stderr, flush=True)
process.communicate(b"go\\n")
print(sorted(raw.lines), flush=True)
"""


def ran(how: str) -> tuple[list[str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, timeout=NEVER_S, check=True
    )
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_what_is_written_meanwhile_is_kept_and_what_a_child_writes_later_is_passed_on() -> None:
    out, err = ran("held")
    assert out == ["['early', 'library', 'warning']"]
    # The child's stream comes through a pipe, whose reader may still be at it.
    assert err[0] == "ours"
    assert err[1:] in ([], ["late"])


def test_where_nobody_wants_it_nothing_is_held_back() -> None:
    out, err = ran("free")
    assert set(out) == {"early", "late", "[]"}
    assert set(err) == {"warning", "library", "ours"}


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ([], None),
        (["INFO all is well", "W1130 Triton not available"], None),
        (
            ["ValueError: one", "torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB"],
            "torch.OutOfMemoryError: CUDA",
        ),
        (
            [
                "(Worker pid=3) ERROR 11-30 [worker.py:1] ValueError: The KV cache is too small.",
                "(EngineCore pid=2) ERROR [core.py:1] Exception: WorkerProc initialization failed, see root cause",
                "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
            ],
            "ValueError: The KV cache is too small.",
        ),
    ],
)
def test_the_cause_is_the_last_error_that_is_no_consequence(lines: list[str], cause: str | None) -> None:
    found = cause_in(lines)
    assert (found or "").startswith(cause or "")
    assert (found is None) is (cause is None)


@pytest.mark.parametrize("how", [True, False])
def test_an_engine_that_cannot_be_loaded_says_the_cause_that_its_process_told(
    how: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        os.write(1, b"ERROR [core.py:1] ValueError: there is no room for the cache\n")
        raise RuntimeError("Engine core initialization failed. See root cause above.")

    monkeypatch.setattr(vllm_host, "_built", fail)
    monkeypatch.setattr(vllm_host, "check_source", lambda path: None)

    def build() -> None:
        held.set(how)
        with pytest.raises(EngineUnavailable) as caught:
            vllm_host.build("m", None, {})
        cause = "ValueError: there is no room for the cache" if how else "Engine core initialization failed."
        assert str(caught.value).startswith(f"vLLM cannot load m: {cause}")

    contextvars.copy_context().run(build)
    assert ("no room" in capfd.readouterr().out) is not how


def test_processes_of_the_engine_are_not_ended_by_a_terminals_ctrl_c() -> None:
    code = """
import multiprocessing, signal
from tts_server.engines.vllm_parts import host as vllm_host

ASKED = "import signal, sys; sys.exit(7 if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()) else 0)"

def started():
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(ASKED,))
    process.start()
    process.join()
    return process.exitcode

with vllm_host._ctrl_c_is_ours():
    print(started(), started())
print(started(), signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7 7\n0 False\n"
