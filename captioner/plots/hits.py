"""Search results as a self-contained HTML page without scripts."""

from collections.abc import Iterable
from html import escape

from PIL import Image

from .html import jpeg, thumbnail

SIDE, QUALITY = 320, 80  # maximum side of a thumbnail in pixels, and JPEG quality
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0; overflow-wrap: anywhere; }
.note { color: color-mix(in srgb, CanvasText 65%, Canvas); margin: .3em 0 1.5em; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(13em, 1fr)); gap: 1.2em;
  list-style: none; margin: 0; padding: 0; }
img, .missing { width: 100%; height: 11em; object-fit: contain; border-radius: 4px;
  background: color-mix(in srgb, CanvasText 8%, Canvas); }
.missing { display: grid; place-items: center; font-size: .85em; }
.hit { display: flex; justify-content: space-between; gap: 1em; font-size: .85em; }
.name { overflow-wrap: anywhere; }
.queried { display: flex; flex-wrap: wrap; gap: 1.2em; margin: 0 0 1.5em; padding: 0; }
.queried figure { width: 13em; margin: 0; font-size: .85em; }
.texts { display: block; }
.texts li { display: flex; gap: 1.2em; padding: .35em 0; align-items: baseline;
  border-bottom: 1px solid color-mix(in srgb, CanvasText 12%, Canvas); }
.texts .name { flex: 1; }
.score { font-variant-numeric: tabular-nums; }
"""


def hits_page(
    query: str,
    note: str,
    hits: Iterable[tuple[str, float, Image.Image | None]],
    queried: Iterable[tuple[str, Image.Image | None]] = (),
) -> str:
    """Format a page with the query, a note below the query, and the images found, in order.

    hits: name, score and RGB image of each hit; the image is None if it can no longer be read.
    queried: name and image of each image in the query, which are shown above the hits.
    """
    items = "\n".join(
        f"<li>{_picture(name, image)}"
        f'<div class="hit"><span class="name">{rank}. {escape(name)}</span>'
        f'<span class="score">{score:.3f}</span></div></li>'
        for rank, (name, score, image) in enumerate(hits, 1)
    )
    return _page(query, note, queried, f"<ol>\n{items}\n</ol>")


def texts_page(
    query: str,
    note: str,
    hits: Iterable[tuple[str, float]],
    queried: Iterable[tuple[str, Image.Image | None]] = (),
) -> str:
    """Format a page with the query, a note below the query, and the texts found, in order.

    hits: text and score of each hit. queried: as in `hits_page`.
    """
    items = "\n".join(
        f'<li><span class="score">{score:.3f}</span><span class="name">{escape(text)}</span></li>'
        for text, score in hits
    )
    return _page(query, note, queried, f'<ol class="texts">\n{items}\n</ol>')


def _page(
    query: str, note: str, queried: Iterable[tuple[str, Image.Image | None]], body: str
) -> str:
    figures = "".join(
        f"<figure>{_picture(name, image)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, image in queried
    )
    shown = f'<div class="queried">{figures}</div>\n' if figures else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(query)}</title>\n<style>{_STYLE}</style></head>\n"
        f'<body>\n<h1>{escape(query)}</h1>\n<p class="note">{escape(note)}</p>\n'
        f"{shown}{body}\n</body>\n</html>\n"
    )


def _picture(name: str, image: Image.Image | None) -> str:
    if image is None:
        return '<div class="missing">the image cannot be read</div>'
    source = f"data:image/jpeg;base64,{jpeg(thumbnail(image, SIDE), QUALITY)}"
    return f'<img src="{source}" alt="{escape(name)}">'
