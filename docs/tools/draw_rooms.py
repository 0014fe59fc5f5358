"""Draws `docs/rooms.svg`: the way of a request, and the rooms of each package with the imports between them.

    python docs/tools/draw_rooms.py

Boxes and arrows are read from the source files, so that the picture cannot show a room or an import that is not there.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "rooms.svg"
PACKAGES = ("bench", "tts_server", "strategies", "prm")
CATALOGUE = "the strategies"
"""The box of all files at the top of `strategies/`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a request: a function, and what it does."""

    file: str
    function: str
    does: str


WAY = (
    Stage("tts_server/middleware/stack.py", "Auth.__call__", "who asks"),
    Stage("tts_server/middleware/gate.py", "Gate.__call__", "whether there is room"),
    Stage("tts_server/routes/chat.py", "chat", "the endpoint"),
    Stage("tts_server/answer/respond.py", "respond", "check, plan, run, render"),
    Stage("tts_server/planning/plan.py", "plan", "task, strategy, budget"),
    Stage("tts_server/answer/chat.py", "completion", "events to OpenAI's JSON"),
    Stage("strategies/core/search_events.py", "anytime", "the best answer in time"),
    Stage("strategies/best_of_n.py", "best_of_n", "the search"),
    Stage("strategies/core/metered.py", "MeteredEngine.generate", "counts and limits tokens"),
    Stage("tts_server/admission/engine.py", "AdmittedEngine.generate", "waits for its turn"),
    Stage("tts_server/engines/fake.py", "FakeEngine.generate", "generates text"),
    Stage("prm/fake.py", "FakePRM.score", "scores the steps"),
)
"""The functions that a chat with `best_of_n` enters, in the order in which it first enters them."""

BOX_HEIGHT, ROW, GAP, LETTER, MARGIN = 26, 58, 12, 7.2, 18
WIDTH = 1180


def imports(code: str, package: str) -> Iterator[str]:
    """The absolute name of each module that the code imports, or of what it imports from it."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            yield from (".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names)


def room(name: str) -> tuple[str, str] | None:
    """The package and the room of a module: a folder, or a file at the top; None for what is not ours."""
    package, _, rest = name.partition(".")
    if package not in PACKAGES:
        return None
    first = rest.partition(".")[0]
    if (ROOT / package / first).is_dir() and first:
        return package, first
    if package == "strategies":
        is_strategy = first != "__init__" and (ROOT / package / f"{first}.py").exists()
        return package, CATALOGUE if is_strategy else "registry"
    return (package, f"{first}.py") if (ROOT / package / f"{first}.py").exists() else None


def graph() -> dict[tuple[str, str], dict[tuple[str, str], int]]:
    """How many files of each room import each other room."""
    found: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            here = room(module)
            # Apart from the registry of strategies, a package's own __init__ and __main__ only hand names on.
            if here is None or here[1] in ("__init__.py", "__main__.py"):
                continue
            targets = found.setdefault(here, defaultdict(int))
            there = {room(name) for name in imports(file.read_text(), module.rpartition(".")[0])}
            for target in there - {here, None}:
                assert target is not None
                targets[target] += 1
    return found


def one_way(edges: dict[str, dict[str, int]]) -> tuple[dict[str, set[str]], list[tuple[str, str]]]:
    """The imports of a package as arrows without a circle, and those that had to be left out for it.

    Arrows are taken in the order of how many files import, so that the weakest one of a circle is left out.
    """
    arrows: dict[str, set[str]] = {name: set() for name in edges}
    back = []
    weighted = [(-files, source, target) for source, targets in edges.items() for target, files in targets.items()]
    for _, source, target in sorted(weighted):
        if source in reachable(arrows, target):
            back.append((source, target))
        else:
            arrows[source].add(target)
    return arrows, back


def reachable(arrows: dict[str, set[str]], start: str) -> set[str]:
    """The rooms that a room imports directly or through others, and itself."""
    seen, waiting = {start}, [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def essential(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that a longer way of arrows implies."""
    return {
        source: {
            target for target in targets if not any(target in reachable(arrows, other) for other in targets - {target})
        }
        for source, targets in arrows.items()
    }


def rows(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The rooms by their height above the ground; a row's rooms stand near those that they are imported by."""
    height: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in height:
            height[name] = 1 + max((measure(target) for target in arrows[name]), default=-1)
        return height[name]

    for name in arrows:
        measure(name)
    levels = [sorted(name for name in arrows if height[name] == level) for level in range(max(height.values()) + 1)]
    levels.reverse()
    place = {name: (i + 0.5) / len(levels[0]) for i, name in enumerate(levels[0])}
    for level in levels[1:]:
        wish = {}
        for name in level:
            above = [place[other] for other in place if name in arrows[other]]
            wish[name] = sum(above) / len(above) if above else 0.5
        level.sort(key=lambda name: (wish[name], name))
        place |= {name: (i + 0.5) / len(level) for i, name in enumerate(level)}
    return levels


@dataclass(frozen=True, slots=True)
class Panel:
    """One package as it is drawn."""

    elements: list[str]
    height: float


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(words)}</text>'


def panel(
    package: str, edges: dict[str, dict[str, int]], uses: Iterable[str], x: float, y: float, width: float
) -> Panel:
    """A package: its name, what it imports of others, and its rooms in rows above what they import."""
    arrows, back = one_way(edges)
    levels = rows(arrows)
    top = y + 66
    boxes: dict[str, tuple[float, float, float]] = {}
    line = top
    for level in levels:
        # Rooms that do not fit into one line of the panel stand in two.
        for part in lines(level, width):
            total = sum(box_width(name) for name in part)
            space = (width - total) / (len(part) + 1)
            left = x + space
            for name in part:
                boxes[name] = (left, line, box_width(name))
                left += box_width(name) + space
            line += ROW
    height = line - ROW + BOX_HEIGHT + MARGIN - y
    out = [f'<rect x="{x}" y="{y}" width="{width}" height="{height:.0f}" rx="8" class="panel {package}"/>']
    out.append(text(x + 14, y + 25, f"{package}/", "title"))
    out.append(text(x + 14, y + 44, f"imports {', '.join(uses) or 'no other package'}", "note"))
    drawn = [
        (source, target, "arrow") for source, targets in sorted(essential(arrows).items()) for target in sorted(targets)
    ]
    for source, target, kind in [*drawn, *((*pair, "circle") for pair in sorted(back))]:
        (ax, ay, aw), (bx, by, bw) = boxes[source], boxes[target]
        start, end = (ay + BOX_HEIGHT, by - 4) if by > ay else (ay, by + BOX_HEIGHT + 4)
        bend = (end - start) / 2
        sx, ex = ax + aw / 2, bx + bw / 2
        out.append(
            f'<path d="M{sx:.0f} {start:.0f} C{sx:.0f} {start + bend:.0f} {ex:.0f} {end - bend:.0f} '
            f'{ex:.0f} {end:.0f}" class="{kind}"/>'
        )
    for name, (left, y_box, wide) in sorted(boxes.items()):
        label = name if name.endswith(".py") or " " in name or name == "registry" else f"{name}/"
        out.append(
            f'<rect x="{left:.0f}" y="{y_box:.0f}" width="{wide:.0f}" height="{BOX_HEIGHT}" rx="4" class="box"/>'
        )
        out.append(text(left + wide / 2, y_box + 17, label, "room"))
    return Panel(out, height)


def box_width(name: str) -> float:
    return (len(name) + 1) * LETTER + 14


def lines(level: list[str], width: float) -> list[list[str]]:
    """A row's rooms in as many lines as the panel's width needs."""
    for parts in count(1):
        size = -(-len(level) // parts)
        split = [level[i : i + size] for i in range(0, len(level), size)]
        if size == 1 or all(sum(box_width(name) + GAP for name in part) + GAP <= width for part in split):
            return split
    raise AssertionError


def way(x: float, y: float, width: float) -> Panel:
    """The stages of a request in two lines, each with its file."""
    out = [text(x, y + 18, "The way of a chat", "title")]
    out.append(text(x + 170, y + 18, "best_of_n on the fake engine; a test follows one request along it", "note"))
    a_line = -(-len(WAY) // 2)
    wide = (width - (a_line - 1) * 16) / a_line
    for i, stage in enumerate(WAY):
        if not defines(stage):
            raise SystemExit(f"{stage.file} defines no {stage.function}: mend WAY in {Path(__file__).name}")
        left, top = x + (i % a_line) * (wide + 16), y + 34 + (i // a_line) * 86
        out.append(
            f'<rect x="{left:.0f}" y="{top}" width="{wide:.0f}" height="66" rx="6" '
            f'class="stage {stage.file.partition("/")[0]}"/>'
        )
        folder, _, file = stage.file.rpartition("/")
        folder = folder.removeprefix("tts_server/")
        out.append(text(left + 8, top + 18, f"{i + 1}  {stage.does}", "does"))
        out.append(text(left + 8, top + 38, f"{folder}/", "file"))
        out.append(text(left + 8, top + 54, f"{file} {stage.function.partition('.')[0]}", "file"))
        if i % a_line:
            out.append(f'<path d="M{left - 16:.0f} {top + 33} L{left - 4:.0f} {top + 33}" class="arrow"/>')
    return Panel(out, 34 + 86 * 2)


def defines(stage: Stage) -> bool:
    """Whether a stage's file has its function."""
    body: list[ast.stmt] = ast.parse((ROOT / stage.file).read_text()).body
    for name in stage.function.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


STYLE = """
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2933 }
.title { font: bold 15px system-ui, "DejaVu Sans", sans-serif }
.note { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: #52606d }
.does { font: bold 11px system-ui, "DejaVu Sans", sans-serif }
.file { font-size: 10.5px; fill: #3e4c59 }
.room { text-anchor: middle }
.panel, .stage { stroke-width: 1 }
.tts_server { fill: #eef4fb; stroke: #9fb9d6 }
.strategies { fill: #eef8f0; stroke: #9cc7a5 }
.prm { fill: #fdf5e6; stroke: #d9bd83 }
.bench { fill: #f6f0fa; stroke: #bda6d1 }
.box { fill: #ffffff; stroke: #7b8794 }
.arrow { fill: none; stroke: #7b8794; stroke-width: 1.1; marker-end: url(#tip) }
.circle { fill: none; stroke: #c81e1e; stroke-width: 1.4; marker-end: url(#red) }
"""


def draw() -> str:
    """The whole picture."""
    found = graph()
    inside: dict[str, dict[str, dict[str, int]]] = {package: {} for package in PACKAGES}
    uses: dict[str, set[str]] = {package: set() for package in PACKAGES}
    for (package, name), targets in found.items():
        inside[package].setdefault(name, {})
        for (other, there), files in targets.items():
            if other != package:
                uses[package].add("tts_server.client" if (other, there) == ("tts_server", "client") else other)
            elif there not in ("__init__.py", "__main__.py"):
                inside[package].setdefault(there, {})
                inside[package][name][there] = files
    out: list[str] = []
    y = float(MARGIN)
    request = way(MARGIN, y, WIDTH - 2 * MARGIN)
    out += request.elements
    y += request.height + 10
    out.append(text(MARGIN, y + 18, "The rooms", "title"))
    legend = (
        "a folder with its slash, or a file; an arrow leads to what is imported, and is left out where a longer way "
        "shows it; red closes a circle"
    )
    out.append(text(MARGIN + 170, y + 18, legend, "note"))
    y += 34
    for pair, share in ((("tts_server",), (1.0,)), (("strategies", "prm"), (0.56, 0.44)), (("bench",), (1.0,))):
        x, tallest = float(MARGIN), 0.0
        room_for = WIDTH - 2 * MARGIN - GAP * (len(pair) - 1)
        for package, part in zip(pair, share, strict=True):
            width = round(room_for * part)
            made = panel(package, inside[package], sorted(uses[package]), x, y, width)
            out += made.elements
            x += width + GAP
            tallest = max(tallest, made.height)
        y += tallest + GAP
    height = round(y + MARGIN - GAP)
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        for name, colour in (("tip", "#7b8794"), ("red", "#c81e1e"))
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    title = "<title>The way of a request and the rooms of the packages</title>"
    paper = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([head, title, f"<style>{STYLE}</style>", f"<defs>{tips}</defs>", paper, *out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
