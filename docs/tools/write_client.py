"""Writes `tts_server/client/strategies.py`: a class for each strategy, with its options typed.

    python docs/tools/write_client.py

The classes are read from the registry. A test fails while they differ from it.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import strategies
from strategies import Entry
from tts_server.client.options import StrategyOptions

ROOT = Path(__file__).parents[2]
CLASSES = ROOT / "tts_server" / "client" / "strategies.py"
COMMAND = "python docs/tools/write_client.py"
SHARED = {field.name for field in fields(StrategyOptions)}
PLAIN = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "object": "Mapping[str, Any]"}
ACRONYMS = {"ab_mcts": "ABMCTS", "dvts": "DVTS", "mcts": "MCTS", "rebase": "REBASE"}
HEAD = f'''"""A class for each strategy of the server, with its options typed.

`{COMMAND}` writes this file from the strategies' own signatures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tts_server.client.options import UNSET, StrategyOptions
'''


def own() -> list[Entry]:
    """The strategies of this project, without those that are plugged in."""
    return [e for e in strategies.registry().values() if e.run.__module__.startswith("strategies.")]


def written() -> str:
    """The whole file."""
    return "\n\n\n".join([HEAD.rstrip(), *map(class_of, own())]) + "\n"


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


def class_name(name: str) -> str:
    return ACRONYMS.get(name) or "".join(word.capitalize() for word in name.split("_"))


def members(entry: Entry) -> Iterator[str]:
    for name, schema in entry.options.model_json_schema()["properties"].items():
        if name not in SHARED:
            nullable = {"type": "null"} in schema.get("anyOf", ())
            yield f"    {name}: {python_type(schema)}{' | None' if nullable else ''} = UNSET"


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


if __name__ == "__main__":
    CLASSES.write_text(written())
