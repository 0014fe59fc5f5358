"""What a run shows while it goes."""

import io

import pytest
from rich.console import Console

from bench.running import progress
from bench.running.progress import RunProgress
from bench.stored.records import Record, Usage

RIGHT = Record(id="1", gold="1", samples=(), correct=True, usage=Usage(completion_tokens=1500))
WRONG = Record(id="2", gold="1", samples=(), correct=False, usage=Usage(completion_tokens=500))


def shown(terminal: bool, *lines: str) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=150, _environ={}, color_system=None)
    with RunProgress(console) as bar:
        bar.begin([RIGHT], 4)
        bar.add(RIGHT)
        bar.add(WRONG)
        for line in lines:
            bar.say(line)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_accuracy_with_its_interval_tokens_and_time_left() -> None:
    text = shown(True)
    assert "accuracy 66.7 % (20.8 to 93.9), 3,500 tokens" in text
    assert "3/4" in text
    assert "0 s left" in text


def test_elsewhere_there_is_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(False) == ""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert shown(False).splitlines() == [
        "2/4: accuracy 100.0 % (34.2 to 100.0), 3,000 tokens, 0 s left",
        "3/4: accuracy 66.7 % (20.8 to 93.9), 3,500 tokens, 0 s left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_said_is_seen_as_it_is(terminal: bool) -> None:
    assert "no answer to [3]: 50% [bold]" in shown(terminal, "no answer to [3]: 50% [bold]")
