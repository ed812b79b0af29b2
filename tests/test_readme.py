"""The README holds no placeholders, and what it links to is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_placeholders():
    assert not re.findall(r"@\w+@|TODO|TBD", README)


def test_local_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((ROOT / link).is_file() for link in links)


def test_the_house_is_drawn_as_it_is():
    files = {path.name for path in (ROOT / "captioner").glob("*.py")} - {"__init__.py"}
    drawn = set(re.findall(r"^      (\w+\.py) ", README, re.MULTILINE))
    assert drawn == files
