"""Words in scripts that DejaVu Sans lacks: another font, or one note."""

import io

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from captioner.plots import fonts
from captioner.plots.animations import animation
from captioner.plots.heatmaps import save_heatmap
from captioner.plots.samples import Sample, save_samples

DOG, CAT = "狗", "猫"
MAPS = np.full((2, 4, 4), 1 / 16, np.float32)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget which fonts were found, before and after; no other font than matplotlib's exists."""

    caches = (fonts._file_with, fonts._installed, fonts._characters, fonts._load)

    def forget():
        for function in caches:
            function.cache_clear()

    bundled = [e for e in font_manager.fontManager.ttflist if "mpl-data" in e.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    monkeypatch.setattr(fonts, "_noted", set())
    forget()
    yield
    forget()


@pytest.fixture
def square_font(tmp_path):
    """Install a font in which the dog's character is a black square, and nothing else exists."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "dog"])
    builder.setupCharacterMap({ord(DOG): "dog"})
    pen = TTGlyphPen(None)
    for point, draw in (((0, 0), pen.moveTo), ((0, 900), pen.lineTo), ((900, 900), pen.lineTo)):
        draw(point)
    pen.lineTo((900, 0))
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "dog": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "dog": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2()
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupPost()
    path = tmp_path / "squares.ttf"
    builder.save(path)
    font_manager.fontManager.addfont(path)
    return path


def save(path, words):
    """Save a heatmap of a white image; return it in grey, without the image's own panel."""
    save_heatmap(path, Image.new("RGB", (60, 60), "white"), words, MAPS)
    return np.asarray(Image.open(path).convert("L"))


def black_squares(pixels, side):
    """Return whether a black square of this side is in the picture."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels < 60, (side, side))
    return windows.all(axis=(2, 3)).any()


@pytest.mark.usefixtures("square_font")
@pytest.mark.parametrize(
    ("name", "rows"), [("a.png", slice(0, 46)), ("a.webp", slice(-46, None))], ids=["png", "webp"]
)
def test_an_installed_font_is_used_where_dejavu_lacks_a_character(name, rows, tmp_path, capfd):
    """The words are above the panels of a figure, and below the image of an animation."""
    assert black_squares(save(tmp_path / name, [DOG, "dog"])[rows], 12)
    assert not black_squares(save(tmp_path / name, ["MW", "dog"])[rows], 12)
    assert fonts.drawable(f"a {DOG}") == f"a {DOG}"
    assert fonts.font(20, DOG).getname() == ("Squares", "Regular")
    assert fonts.font(20, f"a {DOG} in a bed").getname()[0] == "DejaVu Sans"
    assert fonts.families(f"a {DOG}")[-1] == "Squares"
    assert capfd.readouterr() == ("", "")


def test_without_a_font_there_is_one_note_for_each_script(tmp_path, capfd):
    """And no warning of matplotlib, which would be an error here; in any format."""
    for name in ("a.png", "b.svg", "c.gif", "d.webp"):
        save_heatmap(
            tmp_path / name, Image.new("RGB", (60, 60)), [DOG, CAT], MAPS, title=f"{DOG}{CAT}"
        )
    text = f"{DOG} 개"
    sample = Sample(Image.new("RGB", (60, 60)), [DOG, "개"], text, text, MAPS)
    save_samples(tmp_path / "samples.png", [sample])
    out, err = capfd.readouterr()
    assert out == ""
    dog, korean = err.splitlines()
    assert dog.startswith(
        f"note: no installed font has {DOG} (CJK); it is drawn as \ufffd; install"
    )
    assert korean.startswith("note: no installed font has 개 (HANGUL); ")


def test_a_missing_character_is_drawn_as_a_replacement(tmp_path):
    with_missing = save(tmp_path / "a.png", [DOG, "dog"])
    assert (with_missing == save(tmp_path / "b.png", ["\ufffd", "dog"])).all()


def test_words_in_dejavu_sans_are_drawn_as_before(monkeypatch):
    """Neither the list of fonts is read nor a character replaced."""
    monkeypatch.setattr(fonts, "_installed", lambda: pytest.fail("the list of fonts was read"))
    text = "naïve Žluťoučký собака σκύλος כלב كلب ₂"
    assert fonts.drawable(text) == text
    assert fonts.font(20, text).getname()[0] == "DejaVu Sans"
    content = animation("gif", Image.new("RGB", (40, 40)), text.split()[:2], MAPS, 0.0)
    assert Image.open(io.BytesIO(content)).n_frames == 3


def test_symbols_are_not_named_as_a_script(capfd):
    assert fonts.drawable("a 🐕 runs") == "a \ufffd runs"
    assert "has 🐕 (symbols)" in capfd.readouterr().err
