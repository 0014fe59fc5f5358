"""The client as a package: its examples, its names, and what importing it costs."""

import asyncio
import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import openai
from asking import served

import tts_server.client
from tts_server.client import Client
from tts_server.config import Settings


def modules() -> list[str]:
    package = tts_server.client
    return [package.__name__, *(f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__))]


def test_the_examples_do_what_they_say(tmp_path: Path) -> None:
    def work(url: str) -> doctest.TestResults:
        runner, known = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), dict(vars(tts_server.client))
        with Client(url) as client:
            known |= {"base_url": url, "client": client, "asyncio": asyncio, "openai": openai}
            for name in modules():
                module = import_module(name)
                for test in doctest.DocTestFinder().find(module, extraglobs={**vars(module), **known}):
                    runner.run(test)
        return runner.summarize(verbose=False)

    results = served(work, settings=Settings(data_dir=tmp_path, traces="redacted"))
    assert results.failed == 0
    assert results.attempted >= 15


def test_everything_public_is_exported_and_sorted() -> None:
    names = [name for name in vars(tts_server.client) if not name.startswith("_")]
    public = {name for name in names if not isinstance(vars(tts_server.client)[name], type(sys))}
    assert set(tts_server.client.__all__) == public
    assert len(tts_server.client.__all__) == len(public)


def test_importing_the_client_imports_no_server_and_no_openai() -> None:
    code = "import sys, tts_server.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    heavy = {"fastapi", "starlette", "uvicorn", "strategies", "prm", "openai", "numpy", "torch"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in names)
    server = [name for name in names if name.startswith("tts_server.") and not name.startswith("tts_server.client")]
    assert server == []
