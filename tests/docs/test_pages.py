"""Pages hold together: links lead somewhere, named tests exist, the reference is not stale."""

import re
import runpy

import pytest

import captioner
from tests.support import pages

ROOT = pages.ROOT


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(page):
    """The page without its fenced blocks and what stands between backticks."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.M | re.S))


def anchors(page):
    """Of its headings, as code-hosting sites make them."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages.PAGES)
def test_no_placeholders(page):
    assert not re.findall(r"@\w+@|TODO|TBD|/(?:tmp|root|home|work)/", read(page))


@pytest.mark.parametrize("page", pages.PAGES)
def test_tests_that_are_named_exist(page):
    for file, _, name in re.findall(r"\b(tests/[\w/]*test_\w+\.py)(::(test_\w+))?", read(page)):
        assert f"def {name}(" in read(file) if name else (ROOT / file).is_file()
    assert not re.findall(r"(?<![\w/])test_\w+\.py", read(page))  # each with its directory


def test_every_page_stands_in_the_index():
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", read("docs/README.md")))
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= linked


def test_every_image_is_shown():
    shown = {
        (ROOT / page).parent / link
        for page in pages.PAGES
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", read(page))
    }
    kinds = (".png", ".webp", ".gif", ".svg", ".jpg")
    assert {path for path in (ROOT / "docs").rglob("*") if path.suffix in kinds} <= shown


def test_the_reference_is_not_stale():
    written = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
    assert read("docs/api.md") == written, "stale: run `python docs/api.py`"
    for name in set(captioner.__all__) - {"__version__"}:
        assert re.search(rf"^### `\w+\.{name}`$", written, re.MULTILINE), name
    assert not re.search(r"^### .*\n\n(```text\n[^`]*```\n\n)?(#|\n)", written, re.MULTILINE)


def test_citation():
    """Citation File Format 1.2.0: what it requires, and the two papers."""
    text = read("CITATION.cff")
    top = dict(re.findall(r'^([a-z-]+): "?([^"\n]+)"?$', text, re.MULTILINE))
    assert top["cff-version"] == "1.2.0" and top["message"] and top["title"] == "captioner"
    assert top["version"] == captioner.__version__ and top["license"] == "Apache-2.0"
    assert '\nauthors:\n  - name: "The captioner authors"\n' in text
    assert re.findall(r"arxiv.org/abs/([\d.]+)", text) == ["1411.4555", "1502.03044"]


def test_licence():
    text = read("LICENSE")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert re.findall(r"^Copyright (.*)$", text, re.MULTILINE) == ["2026 The captioner authors"]
