"""vLLM's parsers of tool calls, for models whose calls are not read here. Knows nothing of engines.

They are asked for whole answers: what a model that was given tools says is told when it has ended.
"""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tts_server.engines.vllm_parts.host import installed, prepare_environment
from tts_server.errors import EngineUnavailable
from tts_server.forms.call_formats import Tool, names_of
from tts_server.forms.call_readers import Call, Piece, Reader
from tts_server.forms.json_schema import Schema

log = logging.getLogger(__name__)

_ANY: Tool = {"type": "function", "function": {"name": "any", "parameters": {"type": "object", "properties": {}}}}


def check_name(name: str) -> None:
    """Raises EngineUnavailable unless vLLM has a parser of that name; to be asked before the model is loaded."""
    prepare_environment()
    with installed():
        from vllm.tool_parsers import ToolParserManager  # noqa: PLC0415
    known = ToolParserManager.list_registered()
    if name not in known:
        raise EngineUnavailable(f"tool_parser: vLLM has no {name!r}; it has {', '.join(known)}")


class VLLMFormat:
    """The format of one of vLLM's parsers.

    Args:
        name: vLLM's for it.
        tokenizer: the model's, as vLLM loads it; a copy of it is used.

    Raises:
        EngineUnavailable: the parser does not go with the model, or does not read whole answers.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        from vllm.tool_parsers import ToolParserManager  # noqa: PLC0415

        self._name = name
        self._tokenizer = copy.deepcopy(tokenizer)
        self._marks = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.content)
        try:
            self._parser = ToolParserManager.get_tool_parser(name)
            parser, request = self._parser_for([_ANY])
            parser.extract_tool_calls("", request)
            self.special_tokens = not parser.adjust_request(request).skip_special_tokens
        except NotImplementedError:
            raise EngineUnavailable(f"tool_parser: vLLM's {name!r} reads no whole answers") from None
        except Exception as error:
            raise EngineUnavailable(f"tool_parser: vLLM's {name!r} does not go with the model: {error}") from error

    def reader(self, tools: Sequence[Tool]) -> Reader:
        return _Whole(self, tools)

    def is_broken(self, content: str) -> bool:
        # Of what a model says, only its calls are written with tokens that were added to its vocabulary.
        return any(mark in content for mark in self._marks) or bool(self._calls_in(content, [_ANY])[0])

    def call_or_answer(self, parameters: Mapping[str, Schema], answer: Schema, *, parallel: bool) -> None:
        """Its calls have no grammar here."""

    def pieces(self, text: str, tools: Sequence[Tool]) -> Iterator[Piece]:
        """A whole answer: its content and its calls, or content alone where a call is none of these tools'."""
        calls, content = self._calls_in(text, tools)
        if not {call.name for call in calls} <= {*names_of(tools)}:
            calls, content = [], text
        if content.strip() or (not calls and content):
            yield Piece(content)
        for number, call in enumerate(calls):
            yield Piece(call=number, name=call.name, arguments=call.arguments)

    def _calls_in(self, text: str, tools: Sequence[Tool]) -> tuple[list[Call], str]:
        """The calls of an answer, and the rest of it."""
        parser, request = self._parser_for(tools)
        try:
            found = parser.extract_tool_calls(text, request)
        except Exception as error:
            log.warning("vLLM's tool parser %r fails with %s", self._name, type(error).__name__)
            return [], text
        calls = [Call(call.function.name, call.function.arguments) for call in found.tool_calls]
        return (calls, found.content or "") if calls else ([], text)

    def _parser_for(self, tools: Sequence[Tool]) -> tuple[Any, Any]:
        """A parser of one answer, and the request that it looks into."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: PLC0415

        request = ChatCompletionRequest.model_validate(
            {"messages": [], "tools": [dict(tool) for tool in tools], "tool_choice": "auto"}
        )
        parser: Any = self._parser
        return parser(self._tokenizer, request.tools), request


class _Whole:
    """Holds an answer until it has ended."""

    def __init__(self, form: VLLMFormat, tools: Sequence[Tool]) -> None:
        self._form = form
        self._tools = tools
        self._text = ""

    def push(self, text: str) -> Iterator[Piece]:
        self._text += text
        return iter(())

    def end(self) -> Iterator[Piece]:
        return self._form.pieces(self._text, self._tools)
