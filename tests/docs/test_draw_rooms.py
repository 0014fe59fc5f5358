"""The picture of the rooms is the one that the code has now, and a request goes the way that it shows."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import draw_rooms as drawing
from serving import ask, serving

from prm import FakePRM

ROOT = Path(__file__).parents[2]


def test_the_picture_is_up_to_date() -> None:
    assert drawing.PICTURE.read_text() == drawing.draw(), "run: python docs/tools/draw_rooms.py"


def test_a_request_goes_the_way_that_is_drawn() -> None:
    way = [(stage.file, stage.function) for stage in drawing.WAY]
    entered: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT):
            call = (str(path.relative_to(ROOT)), frame.f_code.co_qualname)
            if call in way and call not in entered:
                entered.append(call)

    async def main() -> None:
        async with serving(prms=[FakePRM()]) as client:
            sys.setprofile(note)
            try:
                response = await ask(client, tts={"strategy": "best_of_n", "n": 4})
            finally:
                sys.setprofile(None)
            assert response.status_code == 200

    asyncio.run(main())
    assert entered == way


def test_every_stage_is_in_the_list_of_the_architecture() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    places = [page.find(f"`{stage.file}`") for stage in drawing.WAY]
    assert -1 not in places


def test_the_architecture_names_no_file_that_is_gone() -> None:
    words = (ROOT / "ARCHITECTURE.md").read_text().split("`")[1::2]
    files = [word for word in words if word.endswith((".py", ".svg", ".md")) and "/" in word and " " not in word]
    assert [file for file in files if not (ROOT / file).exists()] == []
