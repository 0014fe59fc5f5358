from pathlib import Path

import pytest

from bench.studies.peers.environments import Packages, Unavailable, environment


def test_packages_that_cannot_be_had_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    nowhere = Packages(whole=("a-package-that-is-nowhere==1.0",))
    with pytest.raises(Unavailable, match="a-package-that-is-nowhere"):
        environment("nowhere", nowhere, tmp_path)
    assert not (tmp_path / "nowhere" / "installed.txt").exists()


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    commands = environment("empty", Packages(), tmp_path)
    made = (commands / "python").lstat().st_mtime_ns
    assert environment("empty", Packages(), tmp_path) == commands
    assert (commands / "python").lstat().st_mtime_ns == made
