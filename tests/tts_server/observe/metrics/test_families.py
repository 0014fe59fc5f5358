"""The metrics are named as Prometheus wants it, and the page on them says what there is."""

import re
from pathlib import Path

import pytest

from tts_server.observe.metrics.families import FAMILIES, Family

PAGE = (Path(__file__).parents[4] / "docs" / "operations.md").read_text()
ENDINGS = {"counter": r"_total", "histogram": r"_(seconds|size)", "gauge": r"(?<!_total)"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_named_and_described(family: Family) -> None:
    assert re.fullmatch(rf"tts_[a-z]+(_[a-z]+)*{ENDINGS[family.kind]}", family.name)
    assert family.says.endswith(".")
    assert bool(family.buckets) is (family.kind == "histogram")
    labels = ", ".join(f"`{label}`" for label in family.labels)
    assert f"| `{family.name}` | {family.kind} | {labels} | {family.says} |" in PAGE


def test_the_page_names_no_other() -> None:
    assert set(re.findall(r"^\| `(tts_\w+)`", PAGE, re.MULTILINE)) == {family.name for family in FAMILIES}
