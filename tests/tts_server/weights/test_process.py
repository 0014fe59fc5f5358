import os
import sys
import threading
from pathlib import Path

import pytest
from patience import NEVER_S

from tts_server.weights.process import ProcessFailed, locked, run


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_gets_our_environment_and_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    run(python("import os; print(os.environ['OURS'] + os.environ['MORE'])"), tmp_path, {"MORE": "2"}, lambda: None)
    assert (tmp_path / "log.txt").read_text() == "12\n"


def test_what_it_prints_never_blocks_it(tmp_path: Path) -> None:
    run(python("print('x' * 1_000_000)"), tmp_path, {}, lambda: None)
    assert (tmp_path / "log.txt").stat().st_size == 1_000_001


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('ERROR: no such wheel'); print('a hint'); exit(1)", "ERROR: no such wheel"),
        ("raise ValueError('bad weights')", "ValueError: bad weights"),
        ("print('so long'); exit(1)", "so long"),
        ("exit(3)", "it ended with status 3"),
    ],
)
def test_a_failure_is_told_by_the_line_that_says_why(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(ProcessFailed, match=f"^{reason}$"):
        run(python(code), tmp_path, {}, lambda: None)


def test_a_program_does_not_outlive_an_interrupted_wait(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def interrupt() -> None:
        if file.exists() and file.read_text():
            raise KeyboardInterrupt

    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run(python(code), tmp_path, {}, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_a_look_at_a_program_that_fails_does_not_end_it(tmp_path: Path) -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        (tmp_path / "seen").touch()
        raise FileNotFoundError("a directory that went")

    code = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'seen')!r}): time.sleep(0.01)\nprint('done')"
    run(python(code), tmp_path, {}, look)
    assert looks
    assert (tmp_path / "log.txt").read_text() == "done\n"


def test_a_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    waits, inside = threading.Event(), threading.Event()

    def second() -> None:
        with locked(tmp_path / "lock", waits.set):
            inside.set()

    other = threading.Thread(target=second)
    with locked(tmp_path / "lock", lambda: None):
        other.start()
        assert waits.wait(NEVER_S)
        assert not inside.is_set()
    other.join(NEVER_S)
    assert inside.is_set()


def test_a_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", lambda: None):
        _ = 1 / 0
    told: list[str] = []
    with locked(tmp_path / "lock", lambda: told.append("waits")):
        assert told == []
