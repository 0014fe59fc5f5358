"""What an upstream's chat tells apart, thought, answer and calls of tools, as the one text that a model would say."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from strategies.thinking import CLOSE, OPEN
from tts_server.call_readers import Hermes
from tts_server.engines.openai_values import text_in


class ChatText:
    """One choice's deltas as text: the thought in think tags, calls as the format `hermes` has them."""

    def __init__(self) -> None:
        self._thinking = self._answered = False
        self._call: int | None = None
        self._argued = False
        """Whether the open call has arguments."""

    def grow(self, delta: Mapping[str, Any], *, ended: bool) -> str:
        """The text that a delta adds.

        Args:
            delta: of OpenAI's stream.
            ended: whether it is the choice's last.
        """
        content = text_in(delta.get("content"))
        calls: Sequence[Mapping[str, Any]] = delta.get("tool_calls") or ()
        if self._answered:
            text = ""
        else:
            text = self._think(text_in(delta.get("reasoning")) or text_in(delta.get("reasoning_content")))
        if content or calls:
            text += self._end_thought()
        text += content + "".join(map(self._grow_call, calls))
        return text + (self._end_call() if ended else "")

    def _think(self, thought: str) -> str:
        opening = OPEN if thought and not self._thinking else ""
        self._thinking = self._thinking or bool(thought)
        return opening + thought

    def _end_thought(self) -> str:
        closing = CLOSE if self._thinking and not self._answered else ""
        self._answered = True
        return closing

    def _grow_call(self, call: Mapping[str, Any]) -> str:
        function: Mapping[str, Any] = call.get("function") or {}
        text = ""
        if call["index"] != self._call:
            text = self._end_call()
            text += f'{Hermes.OPEN}{{"name": {json.dumps(text_in(function["name"]))}, "arguments": '
            self._call, self._argued = call["index"], False
        arguments = text_in(function.get("arguments"))
        self._argued = self._argued or bool(arguments.strip())
        return text + arguments

    def _end_call(self) -> str:
        if self._call is None:
            return ""
        self._call = None
        return ("" if self._argued else "{}") + "}" + Hermes.CLOSE
