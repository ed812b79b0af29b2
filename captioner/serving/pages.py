"""The pages of the service, built from HTML files and the styles and scripts that they share."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

_INCLUDE = re.compile(r"(?:/\*|<!--) include ([\w-]+\.(?:css|js|html)) (?:\*/|-->)")


def add_pages(app: "FastAPI", *, captions: bool, search: bool, relations: bool) -> str:
    """Add the pages and return a Content-Security-Policy that allows only their own code.

    captions: whether the service has a captioner. search: whether it has indexes. relations:
    whether it has a relation model. The start page is the search page if there is one, otherwise
    the page of captions if there is one, otherwise the page of relations.
    """
    pages = {"/docs": "docs.html"}
    if relations:
        pages |= {"/": "relation.html", "/relation": "relation.html"}
    if captions:
        pages |= {"/": "page.html", "/caption": "page.html"}
    if search:
        pages |= {"/": "search.html", "/search": "search.html", "/projection": "projection.html"}
    texts = {name: read_page(name) for name in set(pages.values())}
    for path, name in pages.items():
        app.add_route(path, partial(_page, texts[name]))
    return content_security_policy(texts)


def read_page(name: str) -> str:
    """Return a page as text, in which the files that it includes replace its include comments.

    These comments are `/* include FILE */` and `<!-- include FILE -->`.
    """
    folder = resources.files(__package__)

    def read(file: str) -> str:
        return folder.joinpath(file).read_text(encoding="utf-8")

    return _INCLUDE.sub(lambda match: read(match[1]), read(name))


def content_security_policy(pages: Mapping[str, str]) -> str:
    """Return a policy that allows only the scripts and styles of the pages, by their hashes."""
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for text in pages.values():
        for tag, hashes in sources.items():
            for content in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL):
                digest = hashlib.sha256(content.encode()).digest()
                hashes.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    return (
        f"default-src 'none'; script-src {' '.join(sources['script'])}; "
        f"style-src {' '.join(sources['style'])}; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _page(text: str, request: "Request") -> "Response":  # noqa: ARG001  starlette passes it
    from fastapi.responses import HTMLResponse

    return HTMLResponse(text)
