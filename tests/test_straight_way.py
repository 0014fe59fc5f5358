"""How straight the way of a request is: our own frames, files and calls between the door and the engine."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from patience import NEVER_S

from prm import FakePRM
from strategies.core.contracts import Chunk, Prompt, Sampling
from tts_server.app import create_app
from tts_server.config import Settings
from tts_server.engines.fake import FakeEngine

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / package) + "/" for package in ("prm", "strategies", "tts_server"))


@dataclass
class Profile:
    """What one request enters of our own code."""

    calls: int = 0
    files: set[str] = field(default_factory=set)
    frames: int = 0
    """The deepest stack of our own frames at a chunk of the engine."""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.calls += 1
            self.files.add(frame.f_code.co_filename)


class WatchedEngine(FakeEngine):
    """The fake engine, which counts our own frames above each of its chunks."""

    profile: Profile | None = None

    async def generate(self, prompt: Prompt, sampling: Sampling, n: int = 1) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().generate(prompt, sampling, n)) as chunks:
            async for chunk in chunks:
                if self.profile:
                    self.profile.frames = max(self.profile.frames, _frames(sys._getframe()))
                yield chunk


def _frames(frame: FrameType | None) -> int:
    depth = 0
    while frame := frame.f_back if frame else None:
        depth += frame.f_code.co_filename.startswith(OURS)
    return depth


async def profiled(body: dict[str, Any]) -> Profile:
    """Of the second of two equal requests, so that what happens once in a process does not count."""
    engine, profile = WatchedEngine(), Profile()
    app = create_app(engine, [FakePRM()], Settings(traces="off"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=NEVER_S) as client:
        for watched in (False, True):
            if watched:
                engine.profile = profile
                sys.setprofile(profile)
            try:
                answer = await client.post("/v1/chat/completions", json={"model": "fake", **body})
            finally:
                sys.setprofile(None)
            assert answer.status_code == 200, answer.text
    return profile


@pytest.mark.parametrize(("strategy", "most"), [("beam_search", 80_000), ("mcts", 42_000), ("best_of_n", 3_600)])
def test_a_search_enters_few_functions_of_ours(strategy: str, most: int) -> None:
    """The fake engine repeats its question until the steps are spent: 640 samples of nine chunks in a beam search."""
    asked = {"role": "user", "content": "What is 17 * 23?"}
    profile = asyncio.run(profiled({"messages": [asked], "tts": {"strategy": strategy}, "seed": 1}))
    assert profile.calls <= most


def test_few_frames_and_files_of_ours_stand_between_the_door_and_the_engine() -> None:
    profile = asyncio.run(profiled({"messages": [{"role": "user", "content": "What is 17 * 23?"}]}))
    assert profile.frames <= 15
    assert len(profile.files) <= 49
