"""The strategy of a tutorial answers a chat, as its reader has written it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from tomllib import loads

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorials" / "write_a_strategy.md").read_text()
CHAT = """
import asyncio

import small_vote
from serving import ask, serving


async def main() -> None:
    async with serving() as client:
        response = await ask(client, tts={"strategy": "small_vote", "n": 3})
        print(response.status_code, response.json()["tts"]["samples"])


asyncio.run(main())
"""


def test_the_strategy_answers(tmp_path: Path) -> None:
    code = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "small_vote.py").write_text(code)
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "tests" / "support")))
    # In a process of its own: what it registers is not for other tests.
    chat = subprocess.run(
        [sys.executable, "-c", CHAT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert chat.stdout == "200 3\n", chat.stderr


def test_the_package_names_its_module() -> None:
    package = loads(re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0])
    assert package["project"]["entry-points"]["tts_server.strategies"] == {"small_vote": "small_vote"}
    assert package["tool"]["setuptools"]["py-modules"] == ["small_vote"]
