import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tts_server.weights.progress import bytes_in


def test_the_size_of_a_directory_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "inner" / "deep").mkdir(parents=True)
    (tmp_path / "inner" / "deep" / "b").write_bytes(b"345")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert bytes_in(tmp_path) == 5
    assert bytes_in(tmp_path / "missing") == 0


def test_a_directory_that_goes_while_it_is_measured_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stays").write_bytes(b"12")
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "pip-unpack" / "part").write_bytes(b"345")
    scandir = os.scandir

    def while_pip_cleans_up(path: Any = ".") -> Any:
        if str(path).endswith("pip-unpack"):
            shutil.rmtree(path, ignore_errors=True)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", while_pip_cleans_up)
    assert bytes_in(tmp_path) == 2
