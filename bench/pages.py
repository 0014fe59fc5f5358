"""The pages of docs/strategies, one a strategy, written from its docstrings, its option schema and a search of it.

python -m bench.pages [--check]
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.search_figure import WORLD, trace
from bench.strategy_guides import GUIDES
from strategies import Entry, registry

PAGES = Path(__file__).parents[1] / "docs" / "strategies"
INDEX = "README.md"
_ARXIV = re.compile(r"\d{4}\.\d{5}")
_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("minLength", "characters: at least {}"),
    ("maxLength", "characters: at most {}"),
    ("minItems", "items: at least {}"),
    ("maxItems", "items: at most {}"),
)


def entries() -> dict[str, Entry]:
    """The strategies of this project, without those that other packages register."""
    return {name: entry for name, entry in registry().items() if _module(entry).startswith("strategies.")}


def page(entry: Entry) -> str:
    """A strategy's page, in Markdown.

    Raises:
        KeyError: the strategy has no guide.
        Refused: the strategy needs an extra that is not installed.
    """
    return "\n\n".join([*_about(entry), *_use(entry), *_figure(entry)]) + "\n"


def index() -> str:
    """The table of all strategies, in Markdown."""
    rows = [
        f"| [`{name}`]({name}.md) | {guide.when} | {guide.cost} | {guide.rounds} | {_prm(entry)} |"
        for name, entry in entries().items()
        for guide in [GUIDES[name]]
    ]
    return "\n".join(
        [
            "# Strategies",
            "",
            "L are the tokens of one solution, T its steps. Rounds are calls that wait for one another: they set the "
            "latency, the tokens set the cost. The names in formulas are options.",
            "",
            "| strategy | use it when | generated tokens | rounds | reward model |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "These pages are generated: `python -m bench.pages` writes them.",
            "",
        ]
    )


def stale(folder: Path) -> list[str]:
    """The names of the files in `folder` that are missing, out of date, or of no strategy any more."""
    wanted = _files()
    found = {file.name: file.read_text() for file in folder.glob("*.md")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path) -> None:
    """Writes all pages and removes those of strategies that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _files()
    for name, text in wanted.items():
        (folder / name).write_text(text)
    for file in folder.glob("*.md"):
        if file.name not in wanted:
            file.unlink()


def _files() -> dict[str, str]:
    return {INDEX: index()} | {f"{name}.md": page(entry) for name, entry in entries().items()}


def _module(entry: Entry) -> str:
    module = inspect.getmodule(entry.run)
    return module.__name__ if module else ""


def _about(entry: Entry) -> Iterator[str]:
    yield f"# `{entry.name}`"
    yield entry.description
    papers = [_ARXIV.sub(r"[arXiv:\g<0>](https://arxiv.org/abs/\g<0>)", paper) for paper in entry.paper.split(", ")]
    yield f"Paper: {', '.join(papers)}."
    module = inspect.getmodule(entry.run)
    yield inspect.getdoc(module) or ""
    if rest := (inspect.getdoc(entry.run) or "").partition("\n")[2].strip():
        yield rest
    guide = GUIDES[entry.name]
    needs = "token-id continuation" if entry.continues else "plain chat is enough"
    yield "\n".join(
        [
            f"- Use it when {guide.when}.",
            f"- Generated tokens: {guide.cost} (L: those of one solution).",
            f"- Rounds that wait for one another: {guide.rounds}"
            + (" (T: a solution's steps)." * ("T" in guide.rounds) or "."),
            f"- Reward model: {_prm(entry)}.",
            f"- Engine: {needs}.",
        ]
    )


def _prm(entry: Entry) -> str:
    return "needed" if entry.needs_prm else "used where there is one" if entry.scored else "not used"


def _use(entry: Entry) -> Iterator[str]:
    body = {
        "model": "qwen2.5-coder-0.5b-instruct",
        "messages": [{"role": "user", "content": "What is 17 * 23?"}],
        "tts": {"strategy": entry.name, **GUIDES[entry.name].example},
    }
    yield "## Example"
    yield f"The body of a `POST /v1/chat/completions`:\n\n```json\n{json.dumps(body, indent=2)}\n```"
    yield "## Options"
    schema = entry.options.model_json_schema()
    yield _table(schema)
    for name, part in schema.get("$defs", {}).items():
        yield f"### `{name}`"
        yield part["description"]
        yield _table(part)


def _table(schema: Mapping[str, Any]) -> str:
    """The properties of an object's JSON schema."""
    lines = ["| name | type | default | allowed | what it is |", "|---|---|---|---|---|"]
    for name, option in schema["properties"].items():
        cells = (_type(option), _default(option), _allowed(option), _cell(option.get("description", "")))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _choices(option: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [choice for choice in option.get("anyOf", [option]) if choice.get("type") != "null"]


def _type(option: Mapping[str, Any]) -> str:
    names = [_type_name(choice) for choice in _choices(option)]
    nullable = any(choice.get("type") == "null" for choice in option.get("anyOf", ()))
    return " or ".join([*names, *(["null"] if nullable else [])])


def _type_name(choice: Mapping[str, Any]) -> str:
    if choice.get("type") == "array":
        return f"list of {_type_name(choice['items'])}s"
    return "object" if "type" not in choice else str(choice["type"])


def _default(option: Mapping[str, Any]) -> str:
    return f"`{_cell(json.dumps(option['default'], ensure_ascii=False))}`" if "default" in option else "required"


def _allowed(option: Mapping[str, Any]) -> str:
    allowed = []
    for choice in _choices(option):
        values = choice.get("enum", [choice["const"]] if "const" in choice else [])
        allowed += [", ".join(f"`{value}`" for value in values)] if values else []
        allowed += [text.format(choice[key]) for key, text in _BOUNDS if key in choice]
    return ", ".join(allowed) or "any"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _figure(entry: Entry) -> Iterator[str]:
    guide = GUIDES[entry.name]
    options = {**guide.example, **guide.toy}
    traced = trace(entry, options)
    usage = traced.usage
    given = f"`{json.dumps(options)}`" if options else "the default options"
    samples = f"{usage.samples} sample{'s' * (usage.samples != 1)}"
    cost = f"{samples}, {usage.completion_tokens} generated tokens"
    cost += f" and {usage.prm_tokens} scored ones" * bool(usage.prm_tokens)
    yield "## A search"
    yield (
        f"One run with {given} in the toy world of `bench/toy_world.py`, which shows how it searches and not how good "
        f"it is: a question of {WORLD.depth} steps whose right answer is {WORLD.gold}. It took {cost}, and returned "
        f"{traced.final.best.answer}."
    )
    yield f"```mermaid\n{traced.mermaid()}\n```"
    yield (
        "Each box is a sample, below those that its prompt shows. Green: right so far; red: wrong; grey: neither. A "
        "thick border: part of the returned answer."
    )


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if a page is out of date.")] = False,
) -> None:
    """Writes docs/strategies, or says which of its pages are out of date."""
    if not check:
        write(PAGES)
    elif old := stale(PAGES):
        sys.exit(f"out of date: {', '.join(old)}; run `python -m bench.pages`")


if __name__ == "__main__":
    typer.run(main)
