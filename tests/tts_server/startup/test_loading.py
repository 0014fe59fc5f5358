"""The time until a server answers: what it says, and that a signal ends it with one line and nothing left behind."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from patience import NEVER_S
from rich.console import Console

from tts_server.startup import loading
from tts_server.startup.loading import Loading
from tts_server.weights.catalog import progress
from tts_server.weights.progress import shown

ROOT = Path(__file__).parents[3]
SCRIPT = """
import asyncio, os, subprocess, sys, time
from tts_server.cli import main as cli
from tts_server.cli import serve as cli_serve
from tts_server.engines.fake import FakeEngine
from tts_server.raw_output import captured

stage, told = sys.argv[1], int(sys.argv[2])

def hang():
    noise = "import os, sys, time; os.write(2, b'noise of a child\\\\n'); sys.stdout.write('!'); time.sleep(600)"
    with captured():
        child = subprocess.Popen([sys.executable, "-c", noise])
        os.write(1, b"noise\\n")
        os.write(2, b"W1130 a warning\\n")
        print("noise", file=sys.stderr)
        os.write(told, f"{child.pid}\\n".encode())
        for _ in range(6000):
            # As imports do that are tried: whatever comes up is an answer.
            try:
                time.sleep(0.1)
            except BaseException:
                pass

class Slow(FakeEngine):
    async def start(self):
        if stage == "thread":
            await asyncio.to_thread(hang)
        if stage == "await":
            os.write(told, b"0\\n")
            await asyncio.sleep(600)

def build_engine(settings):
    if stage == "import":
        hang()
    return Slow()

cli_serve.build_engine = build_engine
sys.argv[1:] = ["serve", "--engine", "fake", "--prm", "none", "--port", "0", *sys.argv[3:]]
cli.app()
"""


@contextmanager
def starting(stage: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server that hangs at some stage of its start, and the process that it has started there."""
    source, sink = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, stage, str(sink), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[sink],
        start_new_session=True,
    ) as running:
        os.close(sink)
        try:
            with open(source) as told:
                yield running, int(told.readline())
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)


def is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["import", "thread", "await"])
def test_a_signal_ends_the_start_with_one_line_and_nothing_left(stage: str, number: signal.Signals) -> None:
    with starting(stage) as (running, child):
        # A terminal's Ctrl-C goes to the whole group.
        os.killpg(running.pid, number) if number == signal.SIGINT else running.send_signal(number)
        out, err = running.communicate(timeout=NEVER_S)
        assert out == ""
        assert re.fullmatch(r"ended while .+ · \d+ s\n", err), err
        assert running.returncode == 128 + number
        assert child == 0 or is_gone(child)


def test_a_second_signal_does_not_wait() -> None:
    with starting("thread") as (running, child):
        running.send_signal(signal.SIGINT)
        assert running.stderr
        assert running.stderr.readline().startswith("ended while loading fake")
        running.send_signal(signal.SIGTERM)
        assert running.wait(NEVER_S) == 128 + signal.SIGINT
        assert running.stderr.read() == ""
        assert is_gone(child)


def test_at_the_level_debug_libraries_say_what_they_say() -> None:
    with starting("import", "--log-level", "debug") as (running, _):
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=NEVER_S)
        assert out == "noise\n"
        assert "W1130 a warning\n" in err
        assert err.splitlines()[-1].startswith("ended while importing the engine")


def told(begin: bool, monkeypatch: pytest.MonkeyPatch, **console: object) -> str:
    """What is written until a second line of progress is."""
    monkeypatch.setattr(loading, "QUIET_S", 0.01)
    monkeypatch.setattr(loading, "LINE_S", 0.01)
    enough = threading.Event()

    class Text(io.StringIO):
        def write(self, text: str) -> int:
            written = super().write(text)
            if self.getvalue().count(" s") > 3:
                enough.set()
            return written

    text = Text()
    with Loading(Console(file=text, width=80, **console)) as shows:  # type: ignore[arg-type]
        if begin:
            shows.begin("loading m")
        else:
            shows("it is not here")
            shows("Downloading m", 2_500_000, 10_000_000)
        assert enough.wait(NEVER_S)
    return text.getvalue()


def test_where_there_is_no_terminal_a_line_now_and_then_says_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"(starting · 0 s\n)?(loading m · \d+ s\n)+", told(True, monkeypatch))
    lines = told(False, monkeypatch).splitlines()
    assert [line for line in lines if line.startswith("it is not here")] == ["it is not here"]
    assert "Downloading m" in lines
    assert re.fullmatch(r"Downloading m: 2\.5 MB of 10\.0 MB · \d+ s", lines[-1])


def test_on_a_terminal_one_line_is_kept_up_to_date_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = told(True, monkeypatch, force_terminal=True)
    assert len(re.findall(r"loading m · \d+ s", text)) > 1
    assert "\n\n" not in text
    # The last thing is that the line is erased.
    assert re.search(r"\x1b\[2K$", text)


def test_reports_of_others_go_into_its_line() -> None:
    text = io.StringIO()
    shows = Loading(Console(file=text))
    token = shown.set(shows)
    try:
        with progress() as report:
            report("Downloading m", 1, 2)
    finally:
        shown.reset(token)
    assert text.getvalue() == "Downloading m\n"
    assert shows.doing.startswith("Downloading m: 1 byte of 2 bytes · ")
