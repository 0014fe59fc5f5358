"""What MkDocs does beside its own for the documentation site (mkdocs.yml names this file under `hooks`).

- The site is made of the repository's pages and pictures, each at its own path.
- A flowchart becomes an SVG; a link to a source file becomes its name, since the site holds no sources.
- A page that loads something from another host ends the build: the site is read without a network.
"""

import importlib.util
import re
import sys
from pathlib import Path
from posixpath import dirname, join, normpath
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PLACES = (
    "*.md",
    "docs/**/*.md",
    "docs/*.svg",
    "docs/site/*",
    "examples/*.md",
    "bench/results/**/*.md",
    "bench/results/**/*.png",
)
_FENCE = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#[^)\s]*)?\)")
_LOADED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def _tool(name: str) -> ModuleType:
    """A neighbour of this file, which MkDocs runs by its path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


flowchart = _tool("flowchart")


def _paths() -> list[str]:
    found = {path.relative_to(ROOT).as_posix() for place in PLACES for path in ROOT.glob(place)}
    return sorted(found)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages that a pattern of the navigation matches in its place."""
    named: set[str] = set()
    _gather(config.nav, named)
    config.nav = [_expanded(entry, named) for entry in config.nav or []]
    return config


def _gather(entry: Any, named: set[str]) -> None:
    if isinstance(entry, str):
        named.add(entry)
    for inner in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
        _gather(inner, named)


def _expanded(entry: Any, named: set[str]) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(inner, named) for title, inner in entry.items()}
    if isinstance(entry, list):
        lists = [_matches(one, named) if isinstance(one, str) and "*" in one else [one] for one in entry]
        return [_expanded(one, named) for some in lists for one in some]
    return _matches(entry, named) if "*" in entry else entry


def _matches(pattern: str, named: set[str]) -> list[str]:
    found = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
    return [path for path in found if path not in named]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files are the repository's; of MkDocs' own, the theme's stay."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*theme, *(File.generated(config, path, abs_src_path=str(ROOT / path)) for path in _paths())])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draws the flowcharts, and takes the links off that lead to what the site does not hold."""

    def link(match: re.Match[str]) -> str:
        target = normpath(join(dirname(page.file.src_uri), match[2]))
        return match[1] if not files.get_file_from_path(target) and (ROOT / target).exists() else match[0]

    drawn = _FENCE.sub(lambda match: f'<div class="figure">{flowchart.draw(match[1])}</div>', markdown)
    codes = list(_CODE.finditer(drawn))
    pieces, end = [], 0
    for match in _LINK.finditer(drawn):
        if any(code.start() <= match.start() < code.end() for code in codes):
            continue
        pieces += [drawn[end : match.start()], link(match)]
        end = match.end()
    return "".join([*pieces, drawn[end:]])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses what would need a network."""
    if loaded := _LOADED.findall(output):
        raise PluginError(f"{page.file.src_uri} loads {', '.join(sorted(set(loaded)))} from another host.")
    return output
