"""Images with their best captions, and captions with their best images, as an HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from .html import jpeg, thumbnail

SIDE, QUALITY = 240, 80  # maximum side of a thumbnail in pixels, and JPEG quality
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1em; margin: 2em 0 .8em; }
.note { color: color-mix(in srgb, CanvasText 65%, Canvas); margin: .3em 0; white-space: pre-line; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(21em, 1fr)); gap: 1.5em; }
.image { display: grid; grid-template-columns: 8em 1fr; gap: 1em; align-items: start; }
.hits { display: grid; grid-template-columns: repeat(5, 1fr); gap: .8em; }
.query { margin: 1.4em 0 .4em; overflow-wrap: anywhere; }
ol { margin: 0; padding: 0; list-style: none; font-size: .9em; }
li { margin-bottom: .3em; overflow-wrap: anywhere; }
figure { margin: 0; }
img, .missing { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px;
  box-sizing: border-box; background: color-mix(in srgb, CanvasText 8%, Canvas); }
.missing { display: grid; place-items: center; font-size: .8em; text-align: center; }
figure.own img, figure.own .missing { outline: 3px solid #2b8a57; }
.own { font-weight: 600; }
.score { font-variant-numeric: tabular-nums; font-size: .9em; font-weight: 400;
  color: color-mix(in srgb, CanvasText 65%, Canvas); }
"""


@dataclass(frozen=True)
class Picture:
    """The name of an image, and the image in RGB, or None if it cannot be read."""

    name: str
    image: Image.Image | None


@dataclass(frozen=True)
class ImageMatches:
    """An image and its best captions, each with its score and whether it is the image's own."""

    picture: Picture
    captions: Sequence[tuple[str, float, bool]]


@dataclass(frozen=True)
class CaptionMatches:
    """A caption and its best images, each with its score and whether it is the caption's image."""

    caption: str
    pictures: Sequence[tuple[Picture, float, bool]]


def matches_page(
    title: str, note: str, images: Sequence[ImageMatches], captions: Sequence[CaptionMatches]
) -> str:
    """Format a self-contained HTML page without scripts.

    An image's own captions and a caption's own image are marked. note: text of one or more lines
    below the title.
    """
    by_image = "\n".join(
        f'<div class="image">{_picture(match.picture)}<ol>'
        + "".join(
            f"<li{_marked(own)}>{escape(text)} {_score(score, own)}</li>"
            for text, score, own in match.captions
        )
        + "</ol></div>"
        for match in images
    )
    by_caption = "\n".join(
        f'<p class="query">{escape(match.caption)}</p><div class="hits">'
        + "".join(
            f"<figure{_marked(own)}>{_picture(picture)}"
            f"<figcaption>{_score(score, own)}</figcaption></figure>"
            for picture, score, own in match.pictures
        )
        + "</div>"
        for match in captions
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f'<body>\n<h1>{escape(title)}</h1>\n<p class="note">{escape(note)}</p>\n'
        f'<h2>Images and their best captions</h2>\n<div class="images">\n{by_image}\n</div>\n'
        f"<h2>Captions and their best images</h2>\n{by_caption}\n</body>\n</html>\n"
    )


def _marked(own: bool) -> str:
    return ' class="own"' if own else ""


def _score(score: float, own: bool) -> str:
    return f'<span class="score">{score:.3f}{" (own)" if own else ""}</span>'


def _picture(picture: Picture) -> str:
    if picture.image is None:
        return '<div class="missing">the image cannot be read</div>'
    source = f"data:image/jpeg;base64,{jpeg(thumbnail(picture.image, SIDE), QUALITY)}"
    return f'<img src="{source}" alt="{escape(picture.name)}">'
