"""The README draws the house as it is."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_house_is_drawn_as_it_is():
    files = {path.name for path in (ROOT / "captioner").glob("*.py")} - {"__init__.py"}
    drawn = set(re.findall(r"^      (\w+\.py) ", README, re.MULTILINE))
    assert drawn == files
