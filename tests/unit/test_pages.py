"""Every link between pages has a target."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGES = [
    *TOP.glob("*.md"),
    *(TOP / "docs").rglob("*.md"),
    *(TOP / "tests").glob("*.md"),
]


def links(page):
    """The relative links of a page, outside code blocks."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [to for to in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in to]


def anchors(page):
    """The anchors that a forge makes from a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", t)) for t in titles]
    return {title.strip().lower().replace(" ", "-") for title in plain}


def leads_somewhere(page, to):
    path, _, anchor = to.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not anchor or target.suffix != ".md" or anchor in anchors(target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(TOP).as_posix())
def test_every_link_leads_somewhere(page):
    assert [to for to in links(page) if not leads_somewhere(page, to)] == []


def test_a_link_to_nowhere_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n[x](#a-b-c) [y](#d) [z](none.md)\n```sh\n[w](no)\n```\n")
    assert [to for to in links(page) if not leads_somewhere(page, to)] == ["#d", "none.md"]
