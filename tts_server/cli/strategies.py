"""`tts-server strategies`: what `tts.strategy` can be, of this installation or of a running server."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from tts_server.cli.chat import Key, sentence
from tts_server.cli.terminal import fail, output


def strategies(
    name: Annotated[str | None, typer.Argument(help="One of them, with its options.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask this server, and not this installation.")] = None,
    api_key: Key = None,
) -> None:
    """Lists the strategies; with a name, what each of its options is."""
    from tts_server.client import Client, TTSError  # noqa: PLC0415

    out = output()
    try:
        if url:
            with Client(url, api_key, max_retries=0) as client:
                known = {info.id: info.model_dump() for info in client.strategies()}
        else:
            known = _installed()
    except ValueError as error:
        raise fail(error) from None
    except TTSError as error:
        raise fail(sentence(error)) from None
    if name is None:
        out.print(_table(known))
    elif name not in known:
        raise fail(f"unknown strategy {name!r}; known: {', '.join(known)}")
    else:
        for part in _page(known[name]):
            out.print(part, highlight=False)


def _installed() -> dict[str, dict[str, Any]]:
    from strategies import registry  # noqa: PLC0415

    return {
        entry.name: {
            "id": entry.name,
            "description": entry.description,
            "paper": entry.paper,
            "options": entry.options.model_json_schema(),
        }
        for entry in registry().values()
    }


def _table(known: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(Column("strategy", no_wrap=True), "what it does", "options", "paper")
    for name, told in known.items():
        table.add_row(name, told["description"], ", ".join(told["options"]["properties"]), told["paper"])
    return table


def _page(told: Mapping[str, Any]) -> list[str | Table]:
    schema = told["options"]
    head = f"[bold]{told['id']}[/]: {told['description']}" + (f" ({told['paper']})" if told["paper"] else "")
    parts: list[str | Table] = [head, _options(schema)]
    for name, part in schema.get("$defs", {}).items():
        parts += [f"[bold]{name}[/]: {part.get('description', '')}", _options(part)]
    return parts


def _options(schema: Mapping[str, Any]) -> Table:
    from strategies.core.option_schema import allowed_of, default_of, type_of  # noqa: PLC0415

    table = Table(Column(no_wrap=True), "", show_header=False, box=None)
    for name, option in schema.get("properties", {}).items():
        default = f"default {default_of(option)}" if "default" in option else "required"
        head = f"{type_of(option)}, {default}; {allowed_of(option)}"
        table.add_row(Text(name, "bold"), Text(f"{head}\n{option.get('description', '')}".rstrip()))
    return table
