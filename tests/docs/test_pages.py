"""The documents lead to what is there, and the README stays short."""

import re
from pathlib import Path

import pytest
from wheels import tracked

ROOT = Path(__file__).parents[2]
PAGES = [name for name in tracked() if name.endswith(".md") and (name.startswith("docs/") or "/" not in name)]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in LINK.findall(CODE.sub("", (ROOT / page).read_text())):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_has_the_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert {"    make serve", "    make test"} <= set(lines)


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [page for page in PAGES if page.count("/") < 2 and page != "README.md" and f"({page})" not in readme] == []
