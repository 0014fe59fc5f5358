"""The client's class of each strategy against the server's strategies.

After options have changed, `python tests/tts_server/client/test_strategies.py` writes the classes anew.
"""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import strategies
import tts_server.client
import tts_server.client.strategies as typed
from strategies import Entry
from tts_server.client.options import StrategyOptions, tts_fields

SHARED = {field.name for field in fields(StrategyOptions)}
PLAIN = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "object": "Mapping[str, Any]"}
HEAD = '''"""A class for each strategy of the server, with its options typed.

Written from the strategies' own signatures; a test holds the two together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_server.client.options import UNSET, StrategyOptions
'''


def class_name(name: str) -> str:
    known = {"ab_mcts": "ABMCTS", "dvts": "DVTS", "mcts": "MCTS", "rebase": "REBASE"}
    return known.get(name) or "".join(word.capitalize() for word in name.split("_"))


def python_type(schema: dict[str, Any]) -> str:
    """What a JSON schema is in Python, without null."""
    if "enum" in schema:
        return f"Literal[{', '.join(map(quoted, schema['enum']))}]"
    if "const" in schema:
        return f"Literal[{quoted(schema['const'])}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(python_type(s) for s in schema["anyOf"] if s.get("type") != "null"))
    if schema.get("type") == "array":
        return f"Sequence[{python_type(schema['items'])}]"
    return PLAIN[schema["type"]] if "type" in schema else "Mapping[str, Any]"


def quoted(value: str) -> str:
    return f'"{value}"'


def members(entry: Entry) -> Iterator[str]:
    for name, schema in entry.options.model_json_schema()["properties"].items():
        if name not in SHARED:
            nullable = {"type": "null"} in schema.get("anyOf", ())
            yield f"    {name}: {python_type(schema)}{' | None' if nullable else ''} = UNSET"


def class_of(entry: Entry) -> str:
    says = textwrap.fill(entry.description, 110, subsequent_indent="    ")
    return "\n".join(
        [
            "@dataclass(frozen=True, slots=True, kw_only=True)",
            f"class {class_name(entry.name)}(StrategyOptions):",
            f'    """{says}"""',
            "",
            f'    strategy: ClassVar[str] = "{entry.name}"',
            *members(entry),
        ]
    )


def own() -> list[Entry]:
    """The strategies of this project, without those that are plugged in."""
    return [e for e in strategies.registry().values() if e.run.__module__.startswith("strategies.")]


def written() -> str:
    return "\n\n\n".join([HEAD.rstrip(), *map(class_of, own())]) + "\n"


def test_every_strategy_has_a_class_with_its_options() -> None:
    source = Path(typed.__file__).read_text()
    assert ast.dump(ast.parse(source)) == ast.dump(ast.parse(written())), (
        "the strategies' options have changed: `python tests/tts_server/client/test_strategies.py` writes them anew"
    )


@pytest.mark.parametrize("entry", own(), ids=lambda entry: str(entry.name))
def test_what_is_not_given_is_not_sent_and_none_is_null(entry: Entry) -> None:
    assert {"system_prompt", "examples"} <= entry.options.model_fields.keys()
    kind = getattr(typed, class_name(entry.name))
    assert issubclass(kind, StrategyOptions)
    assert tts_fields(kind()) == {"strategy": entry.name}
    assert tts_fields(kind(examples=None)) == {"strategy": entry.name, "examples": None}


def test_every_class_is_exported() -> None:
    assert {class_name(entry.name) for entry in own()} <= set(tts_server.client.__all__)


if __name__ == "__main__":
    Path(typed.__file__).write_text(written())
