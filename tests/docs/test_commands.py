"""Every command, option, setting and request in the documents is one that the programs take."""

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from tomllib import loads
from typing import Any, NamedTuple

import pytest
import typer
from wheels import tracked

from bench.cli import app as bench_app
from strategies import registry
from tts_server.cli.main import app as server_app
from tts_server.config import ENV_PREFIX, Settings, load
from tts_server.schema.chat import TTS

ROOT = Path(__file__).parents[2]
PAGES = [name for name in tracked("*.md") if not name.startswith(("tests/", "CHANGELOG", "bench/results"))]
PROGRAMS = {"tts-server": typer.main.get_command(server_app), "tts-bench": typer.main.get_command(bench_app)}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
PROGRAM = re.compile(rf"(?<![\w/-])(?:\.venv/bin/)?({'|'.join(PROGRAMS)}) ")
SEARCH = re.compile(r"""(?:"tts": )?(\{\s*"strategy": )""")
END = ("|", ">", "&&", ";", "&")
ELLIPSIS = ("…", "...")
click = import_module(typer.BadParameter.__module__)
"""The exceptions of click, of which Typer may have its own copy."""


class Command(NamedTuple):
    """A command line of a page; a mention in a sentence may leave things out."""

    page: str
    program: str
    arguments: tuple[str, ...]
    is_whole: bool


def commands() -> Iterator[Command]:
    for page in PAGES:
        text = (ROOT / page).read_text()
        blocks = [match[2] for match in FENCED.finditer(text) if match[1] in ("", "bash", "sh")]
        rest = FENCED.sub("", text)
        blocks += [match[0] for match in INDENTED.finditer(rest)]
        for is_whole, pieces in ((True, blocks), (False, INLINE.findall(INDENTED.sub("", rest)))):
            for piece in pieces:
                for line in re.sub(r"\\\n *", "", piece).splitlines():
                    if match := PROGRAM.search(line):
                        yield Command(page, match[1], tuple(words(line[match.end() :])), is_whole)


def words(line: str) -> Iterator[str]:
    """A line's words up to a comment or the next program."""
    for word in shlex.split(line, comments=True):
        if word in END:
            return
        if word not in ELLIPSIS:
            yield word


def parsed(command: Any, arguments: list[str], found: dict[str, Any]) -> dict[str, Any]:
    """What the options of a command line are, those of its sub-commands included."""
    with command.make_context(command.name, arguments) as context:
        found = found | context.params
        if hasattr(command, "resolve_command"):
            _, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert inner
            return parsed(inner, rest, found)
    return found


def read(command: Command) -> dict[str, Any]:
    """The options of a command; its error where it is none."""
    try:
        return parsed(PROGRAMS[command.program], list(command.arguments), {})
    except typer.Exit:
        return {}
    except click.UsageError as error:
        # The files of the examples are not here, and a sentence that mentions a command may leave out what it needs.
        if "does not exist" in error.message or (error.message.startswith("Missing") and not command.is_whole):
            return {}
        if isinstance(error, click.MissingParameter) and not command.is_whole:
            return {}
        raise


@pytest.mark.parametrize(
    "command", sorted(set(commands())), ids=lambda command: f"{command.page}: {shlex.join(command.arguments)}"
)
def test_every_command_is_one(command: Command) -> None:
    found = read(command)
    if (strategy := found.get("strategy")) and (options := found.get("option")):
        entry = registry().get(strategy)
        # Those of the tutorials and examples come from packages that are not installed here.
        if entry:
            assert {option.partition("=")[0] for option in options} <= entry.options.model_fields.keys()


def test_commands_are_found() -> None:
    assert len(set(commands())) > 50


@pytest.mark.parametrize("line", ["serv --engine fake", "serve --motor fake", "traces shows", "chat --budget"])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_command_that_is_none_is_noticed(line: str, is_whole: bool) -> None:
    with pytest.raises(click.UsageError):
        read(Command("a page", "tts-server", tuple(shlex.split(line)), is_whole))


def searches() -> Iterator[tuple[str, str]]:
    """Every `tts` object that a page shows, as JSON."""
    for page in PAGES:
        text = (ROOT / page).read_text()
        for match in SEARCH.finditer(text):
            try:
                _, end = json.JSONDecoder().raw_decode(text, match.start(1))
            except json.JSONDecodeError:
                continue
            yield page, text[match.start(1) : end]


@pytest.mark.parametrize(("page", "search"), sorted(set(searches())))
def test_every_search_can_be_asked_for(page: str, search: str) -> None:
    tts = TTS.model_validate_json(search)
    assert tts.strategy
    registry()[tts.strategy].options(**tts.options)


def test_searches_are_found() -> None:
    assert len(set(searches())) > len(registry())


@pytest.mark.parametrize("page", [page for page in PAGES if ENV_PREFIX in (ROOT / page).read_text()])
def test_every_environment_variable_is_a_setting(page: str) -> None:
    names = re.findall(rf"{ENV_PREFIX}([A-Z]+(?:_[A-Z]+)*)", (ROOT / page).read_text())
    assert [name for name in names if name.lower() not in Settings.model_fields and name != "CACHE"] == []


def configurations() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for kind, block in FENCED.findall((ROOT / page).read_text()):
            if kind == "toml" and loads(block).keys() & Settings.model_fields.keys():
                yield page, block


@pytest.mark.parametrize(("page", "block"), list(configurations()))
def test_every_configuration_is_taken(page: str, block: str, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(block)
    load(file)


def test_configurations_are_found() -> None:
    assert len(list(configurations())) > 1
