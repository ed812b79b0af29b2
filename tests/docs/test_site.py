"""The documentation site is built from docs/ without warnings, in the order of its index."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.pages import ROOT

pytest.importorskip("material")  # the extra docs
pytestmark = [pytest.mark.docs, pytest.mark.slow]


def test_the_site_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    for page in pages - {"README"}:
        assert (tmp_path / page / "index.html").is_file()
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    links = re.findall(
        r'class="md-nav__link"[^>]*href="|href="([\w-]+)/" class="md-nav__link"', start
    )
    ordered = [link for link in links if link in pages]
    assert ordered[:3] == ["quickstart", "platforms", "own-data"]
    for path in tmp_path.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "fonts.googleapis" not in text
        assert 'href="../captioner/' not in text
