"""Pages are consistent: links resolve, named tests exist, the API reference is current."""

import re
import runpy

import pytest

import captioner
from tests.support import pages

ROOT = pages.ROOT


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def without_code(page):
    """The page without fenced blocks and inline code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.M | re.S))


def anchors(page):
    """The anchors of a page's headings, as code-hosting sites make them."""
    headings = re.findall(r"^#+ (.*)$", read(page), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages.PAGES)
def test_no_placeholders_or_local_paths(page):
    assert not re.findall(r"@\w+@|TODO|TBD|/(?:tmp|root|home|work)/", read(page))


@pytest.mark.parametrize("page", pages.PAGES)
def test_named_tests_exist(page):
    for file, _, name in re.findall(r"\b(tests/[\w/]*test_\w+\.py)(::(test_\w+))?", read(page)):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in read(file), f"{file}::{name}"
    assert not re.findall(r"(?<![\w/])test_\w+\.py", read(page))  # always with the directory


def test_every_page_is_in_the_index():
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", read("docs/README.md")))
    existing = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert existing <= linked


def test_pages_are_short_enough_to_read():
    """One question each, on about 150 lines; generated pages and the notes are the exceptions."""
    long = {"docs/api.md", "docs/lab-notes.md", "CONTRIBUTING.md"}
    assert {page for page in pages.PAGES if len(read(page).splitlines()) > 165} <= long


def test_every_image_is_used():
    shown = {
        (ROOT / page).parent / link
        for page in pages.PAGES
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", read(page))
    }
    suffixes = (".png", ".webp", ".gif", ".svg", ".jpg")
    assert {path for path in (ROOT / "docs").rglob("*") if path.suffix in suffixes} <= shown


def test_the_readme_has_the_two_commands():
    commands = {line for block in pages.blocks("README.md") for line in block.text.splitlines()}
    assert "pip install -e . && python train.py --attention" in commands
    assert "pip install -e '.[test]' && pytest -n 2 --dist loadfile" in commands


def test_the_api_reference_is_current():
    generated = runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
    assert read("docs/api.md") == generated, "run: python docs/api.py"
    for name in set(captioner.__all__) - {"__version__"}:
        assert re.search(rf"^### `\w+\.{name}`$", generated, re.MULTILINE), name
    undocumented = r"^### .*\n\n(```text\n[^`]*```\n\n)?(#|\n)"
    assert not re.search(undocumented, generated, re.MULTILINE)


def test_citation_is_valid():
    """Citation File Format 1.2.0: the required fields, and the two papers."""
    text = read("CITATION.cff")
    fields = dict(re.findall(r'^([a-z-]+): "?([^"\n]+)"?$', text, re.MULTILINE))
    assert fields["message"]
    expected = {
        "cff-version": "1.2.0",
        "title": "captioner",
        "version": captioner.__version__,
        "license": "Apache-2.0",
    }
    assert expected.items() <= fields.items()
    assert '\nauthors:\n  - name: "captioner contributors"\n' in text
    assert re.findall(r"arxiv.org/abs/([\d.]+)", text) == ["1411.4555", "1502.03044"]


def test_licence_is_complete():
    text = read("LICENSE")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert re.findall(r"^Copyright (.*)$", text, re.MULTILINE) == ["2026 captioner contributors"]
