"""The site's drawing of a flowchart shows every box, its text and its colour, and no box covers another."""

from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import flowchart
import pytest

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
CHARTS = [
    (page.stem, page.read_text().partition("```mermaid\n")[2].partition("```")[0])
    for page in sorted((ROOT / "docs" / "strategies").glob("*.md"))
    if page.name != "README.md"
]
SMALL = """flowchart TD
    n0(["question"])
    n1["step 1 < 2<br/>score 0.96"]
    n0 --> n1
    classDef right fill:#d9f0d9,stroke:#2e7d32,color:#010
    class n1 right
"""


def test_a_box_has_its_lines_and_colours() -> None:
    drawn = ElementTree.fromstring(flowchart.draw(SMALL))
    assert [text.text for text in drawn.iter(f"{SVG}text")] == ["question", "step 1 < 2", "score 0.96"]
    assert "fill:#d9f0d9" in drawn.findall(f"{SVG}rect")[1].attrib["style"]
    assert drawn.findall(f"{SVG}text")[1].attrib["fill"] == "#010"
    assert len(drawn.findall(f"{SVG}path")) == 1


@pytest.mark.parametrize(("name", "chart"), CHARTS)
def test_every_search_is_drawn_without_one_box_over_another(name: str, chart: str) -> None:
    drawn = ElementTree.fromstring(flowchart.draw(chart))
    width = float(drawn.attrib["width"])
    boxes = [[float(rect.attrib[key]) for key in ("x", "y", "width", "height")] for rect in drawn.findall(f"{SVG}rect")]
    assert len(boxes) == chart.count("[")
    assert len(drawn.findall(f"{SVG}path")) == chart.count("-->")
    assert all(x >= 0 and x + wide <= width for x, _, wide, _ in boxes)
    for (x, y, wide, high), (other_x, other_y, other_wide, other_high) in combinations(boxes, 2):
        assert x + wide <= other_x or other_x + other_wide <= x or y + high <= other_y or other_y + other_high <= y


@pytest.mark.parametrize("chart", ["pie\n  a", 'flowchart TD\n    n0["a"]\n    n0 -.-> n0'])
def test_what_cannot_be_drawn_is_said(chart: str) -> None:
    with pytest.raises(ValueError, match="flowchart"):
        flowchart.draw(chart)
