"""Where nothing can be kept, it is said at the start, and chats are answered all the same."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
from full_disk import disk_of
from patience import NEVER_S

from tts_server.startup.data_dir import fault


def test_a_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    assert fault(tmp_path / "a" / "b") is None
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_what_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert fault(tmp_path / "file") == "File exists"
    assert fault(tmp_path / "file" / "below") == "Not a directory"
    # The kernel makes no directories there, whoever asks.
    assert fault(Path("/proc/none")) == "No such file or directory"
    with disk_of(100):
        assert fault(tmp_path) == "File too large"
    assert fault(tmp_path) is None


def test_a_server_says_at_its_start_that_it_can_keep_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "tts_server.cli.main", "serve", "--engine", "fake", "--port", "0"]
    settings = {**os.environ, "TTS_SERVER_DATA_DIR": str(tmp_path / "file"), "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings) as process:
        assert process.stdout
        ready = process.stdout.readline()
        try:
            url = ready.split(" at ")[1].split("/v1")[0]
            chat = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
            assert httpx.post(url + "/v1/chat/completions", json=chat, timeout=NEVER_S).status_code == 200
            assert httpx.get(url + "/v1/files", timeout=NEVER_S).status_code == 503
        finally:
            process.terminate()
        _, said = process.communicate(timeout=NEVER_S)
    assert process.returncode == 0
    assert f"data_dir: {tmp_path / 'file'} cannot be written to (File exists): no traces are kept" in said
    assert said.index("cannot be written to") < said.index("engine: ")
