"""docs/sdk.md does what it says: its snippets run one after another, as a reader would type them."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from serving import serving

from prm.fake import FakePRM
from tts_server import client
from tts_server.engines.fake import FakeEngine

PAGE = (Path(__file__).parents[3] / "docs" / "sdk.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
MODEL, URL = "qwen2.5-coder-0.5b-instruct", "http://127.0.0.1:8000"


def test_every_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    def read(url: str) -> None:
        known: dict[str, Any] = {}
        for snippet in SNIPPETS:
            exec(compile(snippet.replace(URL, url), "docs/sdk.md", "exec"), known)
        known["client"].close()
        known["wrapped"].close()

    async def main() -> None:
        async with serving(FakeEngine(model=MODEL), [FakePRM()]) as http:
            await asyncio.to_thread(read, str(http.base_url))

    assert len(SNIPPETS) >= 10
    asyncio.run(main())
    said = capsys.readouterr().out
    assert "The answer is \\boxed{" in said
    assert "400 invalid_value tts.n" in said
    assert "no server" not in said


def test_every_error_is_on_the_page() -> None:
    errors = [name for name in client.__all__ if isinstance(getattr(client, name), type)]
    kinds = [name for name in errors if issubclass(getattr(client, name), client.TTSError)]
    assert [name for name in kinds if f"`{name}" not in PAGE] == []
