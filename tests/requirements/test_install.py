import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_type_checker_sees_this_checkout_from_elsewhere(tmp_path: Path) -> None:
    found = json.loads(distribution("tts-server").read_text("direct_url.json") or "{}")
    if found.get("url") != ROOT.as_uri() or not found.get("dir_info", {}).get("editable"):
        pytest.skip("needs this checkout installed by `make install`")
    (tmp_path / "user.py").write_text(
        "from tts_server.client import Client\nreveal_type(Client('http://127.0.0.1:1').chat('?').text)\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    check = [sys.executable, "-m", "mypy", "--strict", "user.py"]
    done = subprocess.run(check, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert 'Revealed type is "str"' in done.stdout, done.stdout
