"""Writes the pages of docs/strategies, one a strategy, from its docstrings, its option schema and a search of it.

python docs/tools/strategy_pages.py [--check]
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from strategy_guides import GUIDES

from bench.simulation.search_figure import WORLD, trace
from strategies import Entry, registry
from strategies.core.option_schema import allowed_of, default_of, type_of

PAGES = Path(__file__).parents[1] / "strategies"
INDEX = "README.md"
_ARXIV = re.compile(r"\d{4}\.\d{5}")


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
            "These pages are generated: `python docs/tools/strategy_pages.py` writes them.",
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
        default = f"`{_cell(default_of(option))}`" if "default" in option else default_of(option)
        cells = (type_of(option), default, allowed_of(option, "`"), _cell(option.get("description", "")))
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


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
        f"One run with {given} in the toy world of `bench/simulation/toy_world.py`, which shows how it searches and "
        f"not how good it is: a question of {WORLD.depth} steps whose right answer is {WORLD.gold}. It took {cost}, "
        f"and returned {traced.final.best.answer}."
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
        sys.exit(f"out of date: {', '.join(old)}; run `python docs/tools/strategy_pages.py`")


if __name__ == "__main__":
    typer.run(main)
