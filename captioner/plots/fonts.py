"""Fonts for captions: DejaVu Sans, and an installed font for the characters that it lacks."""

import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path

from PIL import ImageFont

from ..console import note

MISSING = "\ufffd"  # drawn for a character that no installed font has
_noted: set[str] = set()  # scripts


def drawable(text: str) -> str:
    """Replace each character of a text that no installed font has with MISSING.

    A note on stderr names the first such character of each script, once per process.
    """
    lacking = [character for character in text if _file_with(character) is None]
    for character in lacking:
        if (script := _script(character)) not in _noted:
            _noted.add(script)
            note(
                f"note: no installed font has {character} ({script}); it is drawn as {MISSING}; "
                "install a font for it, such as one of the Noto fonts"
            )
    return text.translate(dict.fromkeys(map(ord, lacking), MISSING))


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """Return the font that most characters of the text use, at a size in pixels.

    A character uses DejaVu Sans if that has it, otherwise the first installed font that has it.
    """
    files = Counter(_file_with(character) or _dejavu() for character in text if character.strip())
    return _load(max(files, key=lambda file: files[file], default=_dejavu()), size)


def families(text: str) -> list[str]:
    """Return matplotlib's font families, followed by those for characters that DejaVu Sans lacks.

    For each character, matplotlib uses the first family that has it.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import get_font

    files = dict.fromkeys(_file_with(character) for character in text)
    extra = (get_font(file).family_name for file in files if file not in (None, _dejavu()))
    return [*rcParams["font.family"], *extra]


@cache
def _load(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


@cache
def _dejavu() -> Path:
    """Return the path of DejaVu Sans, which comes with matplotlib and covers most alphabets."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@cache
def _file_with(character: str) -> Path | None:
    """Return the path of the first font that has the character: DejaVu Sans or an installed one.

    Returns None if no font has the character, and DejaVu Sans for one that is not printable.
    """
    if not character.isprintable() or ord(character) in _characters(_dejavu()):
        return _dejavu()
    return next((file for file in _installed() if ord(character) in _characters(file)), None)


@cache
def _installed() -> tuple[Path, ...]:
    """Return the files of the fonts that matplotlib finds, upright and regular ones first.

    Last Resort fonts are left out, because they contain a box for every character.
    """
    from matplotlib.font_manager import fontManager

    found = [entry for entry in fontManager.ttflist if "lastresort" not in entry.fname.lower()]
    found.sort(key=lambda entry: (entry.style != "normal", entry.weight != 400, entry.name))
    return tuple(dict.fromkeys(Path(entry.fname) for entry in found))


@cache
def _characters(file: Path) -> frozenset[int]:
    """Return the code points that a font has; an empty set for a bitmap font or a broken one."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(str(file))
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(face.get_charmap()) if face.scalable else frozenset()


def _script(character: str) -> str:
    """Return the script of a letter, as in its Unicode name, such as CJK; else "symbols"."""
    if not unicodedata.category(character).startswith(("L", "M")):
        return "symbols"
    return unicodedata.name(character, "unknown").partition(" ")[0]
