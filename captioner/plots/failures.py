"""Irrelevant search results as a self-contained HTML page without scripts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from .html import jpeg, thumbnail

SIDE, QUALITY = 240, 80  # maximum side of a thumbnail in pixels, and JPEG quality
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0; }
h2 { font-size: 1.1em; margin: 2em 0 .5em; overflow-wrap: anywhere; }
h2 span, .note { font-weight: normal; color: color-mix(in srgb, CanvasText 65%, Canvas); }
.note { margin: .3em 0; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(12em, 1fr)); gap: 1.2em;
  list-style: none; margin: 0; padding: 0; font-size: .85em; }
li > * { margin: .3em 0; overflow-wrap: anywhere; }
img, .missing { width: 100%; height: 10em; object-fit: contain; border-radius: 4px;
  background: color-mix(in srgb, CanvasText 8%, Canvas); }
.missing { display: grid; place-items: center; }
.words { display: flex; flex-wrap: wrap; gap: .3em; padding: 0; }
.words span { padding: 0 .5em; border-radius: 1em;
  background: color-mix(in srgb, CanvasText 12%, Canvas); }
"""


@dataclass(frozen=True)
class Failure:
    """An irrelevant image among the first results of a query.

    image: RGB, or None if it can no longer be read. words: words of its captions, with their lifts
    relative to the words of the query.
    """

    rank: int
    name: str
    score: float
    image: Image.Image | None
    caption: str
    words: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class FailedQuery:
    """A query, how many of its first `shown` images are relevant (`right`), and its failures."""

    query: str
    right: int
    shown: int
    failures: Sequence[Failure]


def failures_page(title: str, note: str, queries: Iterable[FailedQuery]) -> str:
    """Format a page with a section for each query: its irrelevant images and their captions."""
    sections = "\n".join(_section(each) for each in queries)
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="note">{escape(note)}</p>\n'
        f"{sections}\n</body>\n</html>\n"
    )


def _section(query: FailedQuery) -> str:
    items = "\n".join(_item(failure) for failure in query.failures)
    return (
        f"<section>\n<h2>{escape(query.query)} <span>{query.right} of {query.shown} relevant"
        f"</span></h2>\n<ol>\n{items}\n</ol>\n</section>"
    )


def _item(failure: Failure) -> str:
    picture = '<div class="missing">the image cannot be read</div>'
    if failure.image is not None:
        source = f"data:image/jpeg;base64,{jpeg(thumbnail(failure.image, SIDE), QUALITY)}"
        picture = f'<img src="{source}" alt="{escape(failure.name)}">'
    words = "".join(f"<span>{escape(word)} {lift:.1f}</span>" for word, lift in failure.words)
    return (
        f'<li value="{failure.rank}">{picture}<div>{failure.rank}. {escape(failure.name)}, '
        f"{failure.score:.3f}</div><div>{escape(failure.caption)}</div>"
        f'<div class="words">{words}</div></li>'
    )
