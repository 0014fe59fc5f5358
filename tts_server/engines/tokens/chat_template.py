"""Chat messages to token ids, by the model's own chat template and tokenizer.

Knows nothing of engines. What a client wrote can never become a control token: a text that spells one is cut out
before the template is rendered and encoded as plain text afterwards.
"""

import inspect
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from strategies.answers.think_tags import CLOSE, OPEN
from strategies.core.contracts import Message, Prompt, TokenIds, text_of
from tts_server.engines.tokens.instructions import Instructions, Turn
from tts_server.errors import InvalidRequest, UnsupportedParameter
from tts_server.forms.call_formats import Name, format_of

_VARIABLES = {"tools", "documents", "add_generation_prompt", "continue_final_message"}
"""Those named arguments of `apply_chat_template` that a request may set; the others would change how it renders."""
_OPENED = re.compile(rf"{OPEN}\s*\Z")


class ChatTemplate:
    """Renders prompts with a tokenizer of `transformers`. May be called from several threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._reserved = set(inspect.signature(tokenizer.apply_chat_template).parameters) - _VARIABLES
        self._controls = {
            token.content: (token_id, token)
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special and token.content
        }
        longest_first = sorted(self._controls, key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        source = str(tokenizer.chat_template or "")
        self._knows_tools = "tools" in source
        self.tool_format: Name | None = format_of(source)
        """How the template shows calls of tools to the model."""
        self.thinks = OPEN in source
        """Whether it may open a thought for the model."""
        self._instructions = Instructions(self._render)

    def opening(self, prompt: Prompt) -> str:
        """The thought's opening that the rendered prompt ends with.

        Raises:
            InvalidRequest: the template does not take the prompt.
        """
        if not self.thinks or not prompt.messages:
            return ""
        if prompt.template.get("continue_final_message"):
            # The turn that is continued may stand anywhere in a thought.
            _, opened, thought = text_of(prompt.messages[-1]).rpartition(OPEN)
            return OPEN if opened and CLOSE not in thought else ""
        template = dict(prompt.template)
        found = _OPENED.search(self._render(self._turns(prompt), template))
        return found[0] if found else ""

    def encode(self, prompt: Prompt) -> TokenIds:
        """The prompt's token ids: its own, or its messages rendered by the template.

        Raises:
            InvalidRequest: the model has no chat template, or it does not take these messages or variables.
        """
        if prompt.token_ids:
            return prompt.token_ids
        written: dict[str, Any] = {"messages": self._turns(prompt), "template": dict(prompt.template)}
        spelled = {found for text in _strings(written) for found in self._control.findall(text)}
        if not spelled:
            return self._ids(self._render(**written), as_text=False)
        # Letters and digits only, so that no template, JSON filter or tokenizer looks at them twice.
        masks = {control: f"x{uuid4().hex}x" for control in spelled}
        masked = _map_strings(written, lambda text: self._control.sub(lambda found: masks[found[0]], text))
        return self._encode_masked(self._render(**masked), {mask: control for control, mask in masks.items()})

    def _turns(self, prompt: Prompt) -> list[Turn]:
        """The prompt's turns, with its instructions where the template shows them to the model."""
        return self._instructions.placed([_plain(message) for message in prompt.messages], prompt.template)

    def _render(self, messages: list[dict[str, Any]], template: dict[str, Any]) -> str:
        from jinja2 import TemplateError  # noqa: PLC0415  (comes with transformers)

        if refused := sorted(self._reserved & set(template)):
            raise InvalidRequest(f"{refused[0]!r} is not a variable of the chat template.", param="messages")
        if self._tokenizer.chat_template is None:
            raise InvalidRequest(
                "This model has no chat template, so it takes no chat messages; send it a prompt of text or token ids.",
                param="messages",
            )
        if template.get("tools") and not self._knows_tools:
            raise UnsupportedParameter("The model's chat template has no place for tools.", param="tools")
        template.setdefault("add_generation_prompt", not template.get("continue_final_message"))
        try:
            rendered: str = self._tokenizer.apply_chat_template(messages, tokenize=False, **template)
        except (TemplateError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InvalidRequest(
                f"The model's chat template does not take these messages: {error}", param="messages"
            ) from error
        return rendered

    def _encode_masked(self, rendered: str, masks: Mapping[str, str]) -> TokenIds:
        """Encodes piece by piece, as the tokenizer itself does, so that each piece can say how it is to be read."""
        mask = re.compile("|".join(masks))
        pieces = self._control.split(rendered)
        ids: list[int] = []
        for i, piece in enumerate(pieces):
            if i % 2:
                ids.append(self._controls[piece][0])
                continue
            before = self._controls[pieces[i - 1]][1] if i else None
            after = self._controls[pieces[i + 1]][1] if i + 1 < len(pieces) else None
            text = piece.lstrip() if before and before.rstrip else piece
            text = text.rstrip() if after and after.lstrip else text
            ids += self._ids(mask.sub(lambda found: masks[found[0]], text), as_text=True)
        return tuple(ids)

    def _ids(self, text: str, *, as_text: bool) -> TokenIds:
        with self._lock:  # the flag is a state of the tokenizer
            return tuple(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=as_text))


def _plain(message: Message) -> dict[str, Any]:
    """A message as templates know it: content as one string, tool arguments as an object."""
    content = message.get("content")
    if not isinstance(content, str | None) and not all(part.get("type") == "text" for part in content):
        raise InvalidRequest("This model takes text only; each content part's type must be 'text'.", param="messages")
    plain = {**message, "content": text_of(message)}
    if calls := message.get("tool_calls"):
        plain["tool_calls"] = [{**call, "function": _plain_call(call["function"])} for call in calls]
    return plain


def _plain_call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        return dict(function)
    try:
        return {**function, "arguments": json.loads(arguments or "{}")}
    except ValueError as error:
        raise InvalidRequest(f"A tool call's arguments are not JSON: {error}", param="messages") from error


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON-like value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every string changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_map_strings(inner, change) for inner in value]
    return value
