"""What an upstream's chat tells apart, thought, answer and calls of tools, as the one text that a model would say."""

from collections.abc import Mapping, Sequence
from typing import Any

from strategies.answers.think_tags import CLOSE, OPEN
from tts_server.engines.openai.calls import Calls
from tts_server.engines.openai.values import text_in

_THOUGHTS = ("reasoning", "reasoning_content")
"""Names of the thought; where both come they say the same."""


class ChatText:
    """One choice's deltas as text: the thought in think tags, calls as the format `hermes` has them."""

    def __init__(self) -> None:
        self._thinking = self._answered = False
        self._calls = Calls()
        self._waiting = ""
        """Content that came in the middle of a call."""

    def grow(self, delta: Mapping[str, Any], *, ended: bool) -> str:
        """The text that a delta adds.

        Args:
            delta: of OpenAI's stream.
            ended: whether it is the choice's last.
        """
        thought, content = _content_in(delta.get("content"))
        calls = _calls_in(delta)
        if self._answered:
            text = ""
        else:
            told = (delta.get(name) for name in _THOUGHTS)
            text = self._think(next((part for part in told if part and isinstance(part, str)), thought))
        if content or calls or delta.get("refusal"):
            text += self._end_thought()
        text += self._say(content) if self._calls.open else content
        if calls:
            text += self._calls.grow(calls)
        return text + (self._end() if ended else "")

    def _think(self, thought: str) -> str:
        opening = OPEN if thought and not self._thinking else ""
        self._thinking = self._thinking or bool(thought)
        return opening + thought

    def _end_thought(self) -> str:
        closing = CLOSE if self._thinking and not self._answered else ""
        self._answered = True
        return closing

    def _say(self, content: str) -> str:
        """Content behind calls: blanks are none."""
        if not content.strip() and not self._waiting:
            return ""
        text = self._calls.settle()
        if not self._calls.open:
            return text + content
        self._waiting += content
        return text

    def _end(self) -> str:
        waiting, self._waiting = self._waiting, ""
        return self._calls.end() + waiting


def _content_in(content: Any) -> tuple[str, str]:
    """A thought and an answer: Mistral's models send a list of both, as parts."""
    if not isinstance(content, list):
        return "", text_in(content)
    thought = answer = ""
    for part in content:
        match part:
            case {"type": "thinking", "thinking": inner}:
                thought += "".join(_content_in(inner))
            case {"type": "text", "text": text} | (str() as text):
                answer += text_in(text)
            case _:
                pass
    return thought, answer


def _calls_in(delta: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Calls of tools: a list, a single one (TGI), or the one call that OpenAI had before there were tools."""
    calls: Any = delta.get("tool_calls") or ()
    if isinstance(calls, dict):
        return (calls,)
    if old := delta.get("function_call"):
        return ({"index": 0, "function": old},)
    return tuple(calls)
