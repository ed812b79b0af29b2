"""Hooks of mkdocs: the order of the pages, and links to files that are not part of the site."""

import re
from pathlib import Path
from typing import Any

INDEX = Path(__file__).with_name("README.md")
OUTSIDE = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:\.\./|[\w./-]+\.(?:py|mjs)\b)[^)]*\)")


def on_config(config: Any) -> Any:
    """List the pages in the order of the table in docs/README.md."""
    rows = re.findall(r"^\| \[([^\]]+)\]\(([\w/-]+\.md)\)", INDEX.read_text("utf-8"), re.MULTILINE)
    listed = [{title: page} for title, page in rows]
    others = sorted(
        path.relative_to(INDEX.parent).as_posix()
        for path in INDEX.parent.rglob("*.md")
        if path.relative_to(INDEX.parent).as_posix() not in {page for _, page in rows}
        and path != INDEX
    )
    config.nav = [{"Overview": "README.md"}, *listed, *others]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace links to the source code by their texts."""
    return OUTSIDE.sub(r"\1", markdown)
