"""Draws the Mermaid flowcharts of docs/strategies as SVG, so that a page of the site needs no script to show them.

It knows the part of Mermaid that `bench/simulation/search_figure.py` writes: `flowchart TD`, boxes with lines of text,
arrows, and classes with colours.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from html import escape

WIDTH = 132
LINE = 17
LAYER_GAP = 42
GAP = 18
MARGIN = 6

_NODE = re.compile(r'(\w+)(\(\[|\[)"(.*)"(?:\]\)|\])')
_EDGE = re.compile(r"(\w+) --> (\w+)")
_STYLE = re.compile(r"classDef (\w+) (.+)")
_CLASS = re.compile(r"class (\w+) (\w+)")


@dataclass(slots=True)
class Box:
    """One node of the flowchart."""

    lines: list[str]
    is_round: bool
    classes: list[str] = field(default_factory=list)
    layer: int = 0
    x: float = 0.0
    """The middle of the box."""

    @property
    def height(self) -> int:
        return LINE * len(self.lines) + 14


@dataclass(slots=True)
class Chart:
    """A flowchart that is read but not drawn yet."""

    boxes: dict[str, Box] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    styles: dict[str, dict[str, str]] = field(default_factory=dict)


def draw(mermaid: str) -> str:
    """The flowchart as one SVG element.

    Raises:
        ValueError: a line is not of the known part of Mermaid.
    """
    chart = _read(mermaid)
    layers = _layers(chart)
    _place(chart, layers)
    tops = _tops(layers)
    width = max(box.x for box in chart.boxes.values()) + WIDTH / 2 + MARGIN
    height = tops[-1] + max(box.height for box in layers[-1]) + MARGIN
    parts = [
        f'<svg class="flowchart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" role="img" aria-label="The search as a tree">'
    ]
    parts += [_edge(chart.boxes[above], chart.boxes[below], tops) for above, below in chart.edges]
    parts += [_box(box, tops[box.layer], chart.styles) for box in chart.boxes.values()]
    return "".join([*parts, "</svg>"])


def _read(mermaid: str) -> Chart:
    first, *lines = mermaid.strip().splitlines()
    if first.strip() != "flowchart TD":
        raise ValueError(f"only a `flowchart TD` can be drawn, not {first!r}")
    chart = Chart()
    for line in map(str.strip, lines):
        if match := _NODE.fullmatch(line):
            chart.boxes[match[1]] = Box(match[3].split("<br/>"), is_round=match[2] == "([")
        elif match := _EDGE.fullmatch(line):
            chart.edges.append((match[1], match[2]))
        elif match := _STYLE.fullmatch(line):
            chart.styles[match[1]] = dict(part.split(":", 1) for part in match[2].split(","))
        elif match := _CLASS.fullmatch(line):
            chart.boxes[match[1]].classes.append(match[2])
        else:
            raise ValueError(f"a line of a flowchart cannot be read: {line!r}")
    return chart


def _layers(chart: Chart) -> list[list[Box]]:
    """The boxes by their distance from the root. The chart lists a box before the arrows that lead to it."""
    for above, below in chart.edges:
        chart.boxes[below].layer = max(chart.boxes[below].layer, chart.boxes[above].layer + 1)
    layers: dict[int, list[Box]] = defaultdict(list)
    for box in chart.boxes.values():
        layers[box.layer].append(box)
    return [layers[number] for number in sorted(layers)]


def _place(chart: Chart, layers: list[list[Box]]) -> None:
    """Puts each box over the middle of what hangs below it, from the leaves up, as the tidy drawing of a tree does."""
    below: dict[str, list[str]] = defaultdict(list)
    hung: set[str] = set()
    for parent, child in chart.edges:
        if child not in hung:
            hung.add(child)
            below[parent].append(child)
    free = [WIDTH / 2 + MARGIN] * len(layers)

    def shift(name: str, distance: float) -> None:
        box = chart.boxes[name]
        box.x += distance
        free[box.layer] = max(free[box.layer], box.x + WIDTH + GAP)
        for child in below[name]:
            shift(child, distance)

    def put(name: str) -> None:
        box = chart.boxes[name]
        for child in below[name]:
            put(child)
        xs = [chart.boxes[child].x for child in below[name]]
        wanted = (min(xs) + max(xs)) / 2 if xs else free[box.layer]
        box.x = max(wanted, free[box.layer])
        free[box.layer] = box.x + WIDTH + GAP
        if xs and box.x > wanted:
            for child in below[name]:
                shift(child, box.x - wanted)

    for name in chart.boxes:
        if name not in hung:
            put(name)


def _tops(layers: list[list[Box]]) -> list[float]:
    tops = [float(MARGIN)]
    for layer in layers[:-1]:
        tops.append(tops[-1] + max(box.height for box in layer) + LAYER_GAP)
    return tops


def _edge(above: Box, below: Box, tops: list[float]) -> str:
    start, end = tops[above.layer] + above.height, tops[below.layer]
    middle = (start + end) / 2
    return (
        f'<path d="M{above.x:g} {start:g}C{above.x:g} {middle:g} {below.x:g} {middle:g} {below.x:g} {end:g}"'
        ' fill="none" stroke="#888" stroke-width="1.2"/>'
    )


def _box(box: Box, top: float, styles: dict[str, dict[str, str]]) -> str:
    style = {"fill": "#fff", "stroke": "#6a6a80", "stroke-width": "1.2px"}
    for name in box.classes:
        style |= styles.get(name, {})
    color = style.pop("color", "#000")
    css = ";".join(f"{key}:{value}" for key, value in style.items())
    radius = box.height / 2 if box.is_round else 4
    parts = [
        f'<rect x="{box.x - WIDTH / 2:g}" y="{top:g}" width="{WIDTH}" height="{box.height}" rx="{radius:g}"'
        f' style="{escape(css)}"/>'
    ]
    parts += [
        f'<text x="{box.x:g}" y="{top + 7 + LINE * (number + 0.75):g}" text-anchor="middle" font-size="13"'
        f' fill="{color}">{escape(line)}</text>'
        for number, line in enumerate(box.lines)
    ]
    return "".join(parts)
