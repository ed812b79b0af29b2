"""Training curves: the panels and lines of the PNG, and the same panels as SVG."""

import io
import re
import xml.etree.ElementTree as ET

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from captioner.plots import curves
from captioner.plots.curves import curves_svg, draw_curves

SCORES = {"BLEU-1": 60.0, "BLEU-4": 20.0, "ROUGE-L": 45.0, "CIDEr": 50.0, "distinct": 70.0}


def row(epoch, **more):
    numbers = {"loss": 3.0 / epoch, "cross_entropy": 2.0 / epoch, "learning_rate": 1e-3 / epoch}
    return {"epoch": epoch, "step": 9 * epoch, "words_per_second": 7.0, **numbers, **SCORES, **more}


@pytest.fixture
def drawn(monkeypatch):
    """The lines of saved figures, by the title of their axes and their label."""
    panels, savefig = {}, matplotlib.figure.Figure.savefig

    def recorded(figure, *args, **kwargs):
        for axes in figure.axes:
            lines = {line.get_label(): line for line in axes.lines}
            panels[axes.get_title(loc="left")] = {
                name: (list(line.get_xdata()), list(line.get_ydata()))
                for name, line in lines.items()
            }
        panels["heading"] = figure.get_suptitle()
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    return panels


def labels(lines):
    """The labels of the lines in the legend."""
    return {name for name in lines if not name.startswith("_")}


def test_numbers_of_a_kind_share_a_panel(drawn, tmp_path):
    path = tmp_path / "mine" / "curves.png"
    path.parent.mkdir()
    rows = [row(epoch, **{"BLEU-4": score}) for epoch, score in ((1, 8.0), (2, 20.0), (3, 19.0))]
    draw_curves(path, rows, "BLEU-4", 2)
    assert drawn["heading"] == "mine: 3 epochs; best: epoch 2, BLEU-4 20.00"
    assert labels(drawn["loss per word"]) == {"loss", "cross entropy"}
    assert drawn["loss per word"]["cross entropy"] == ([1, 2, 3], [2.0, 1.0, 2 / 3])
    assert drawn["validation BLEU-4"]["BLEU-4"] == ([1, 2, 3], [8.0, 20.0, 19.0])
    rings = [points for points in drawn["validation BLEU-4"].values() if points == ([2], [20.0])]
    assert len(rings) == 1
    assert labels(drawn["other scores"]) == {"BLEU-1", "ROUGE-L"}
    assert labels(drawn["CIDEr"]) == {"CIDEr"}
    assert labels(drawn["captions, %"]) == {"distinct"}
    assert drawn["learning rate at the end of the epoch"]["learning rate"][1][1] == 5e-4
    assert not {"reward", "words_per_second", "step"} & drawn.keys()
    for panel in drawn.keys() - {"heading", ""}:  # the best epoch is marked in every panel
        assert any(points[0] == [2, 2] for points in drawn[panel].values())
    image = Image.open(io.BytesIO(path.read_bytes()))
    assert image.width == 1200
    assert np.asarray(image.convert("L")).min() < 50
    assert [each.name for each in path.parent.iterdir()] == ["curves.png"]


def test_the_watched_score_has_a_panel_of_its_own(drawn, tmp_path):
    draw_curves(tmp_path / "c.png", [row(1, reward=0.5)], "CIDEr", 1)
    assert labels(drawn["validation CIDEr"]) == {"CIDEr"}
    assert "CIDEr" not in drawn
    assert "BLEU-4" in drawn["other scores"]
    assert labels(drawn["reward"]) == {"reward"}
    assert drawn["heading"].endswith(": 1 epoch; best: epoch 1, CIDEr 50.00")


def test_missing_values_leave_gaps(drawn, tmp_path):
    """Rows of older logs lack some values, and scores that are not finite are None."""
    rows = [row(1, loss=float("nan")), row(2, loss=None), row(3)]
    for each in rows[:2]:
        del each["learning_rate"]
    draw_curves(tmp_path / "c.png", rows, "BLEU-4", 0)
    loss = drawn["loss per word"]["loss"][1]
    assert np.isnan(loss[:2]).all()
    assert loss[2] == 1
    rates = drawn["learning rate at the end of the epoch"]["learning rate"][1]
    assert np.isnan(rates[:2]).all()
    assert rates[2] == pytest.approx(1e-3 / 3)
    assert "best" not in drawn["heading"]


# ---- as SVG -------------------------------------------------------------------------------------


def parse(svg):
    """The element tree of an SVG element; a page's HTML parser knows the namespace of xlink."""
    return ET.fromstring(svg.replace("<svg", '<svg xmlns:xlink="xlink"', 1))


def markers(svg, color):
    """Positions of the markers of one colour in the axes; those of the legend come after them."""
    uses = [each for each in parse(svg).iter("use") if color in each.get("style", "")]
    return [(float(each.get("x")), float(each.get("y"))) for each in uses]


def test_svg_has_the_panels_of_the_png(drawn, tmp_path):
    rows = [row(epoch) for epoch in (1, 2, 3)]
    draw_curves(tmp_path / "c.png", rows, "BLEU-4", 2)
    png = {title: lines for title, lines in drawn.items() if title not in ("heading", "")}
    drawn.clear()
    elements = curves_svg(rows, "BLEU-4", 2)
    assert {title: lines for title, lines in drawn.items() if title != "heading"} == png
    titles = [parse(svg).find("title").text for svg in elements]
    assert titles[0] == "loss per word; last epoch: loss 1, cross entropy 0.6667"
    assert [title.partition(";")[0] for title in titles] == list(png)


def test_svg_points_are_at_their_values():
    color = curves._LINES["loss"][0]
    rows = [{"epoch": epoch, "loss": 4.0 / epoch} for epoch in (1, 2, 4)]
    (svg,) = curves_svg(rows, "CIDEr", 0)
    (x1, y1), (x2, y2), (x4, y4) = markers(svg, color)
    assert x4 - x1 == pytest.approx(3 * (x2 - x1), abs=0.01)
    assert y4 - y1 == pytest.approx(1.5 * (y2 - y1), abs=0.01)
    assert y1 < y2 < y4
    constant = [{"epoch": epoch, "loss": 2.0} for epoch in (1, 2)]
    assert len({y for _, y in markers(*curves_svg(constant, "CIDEr", 0), color)}) == 1


def test_svg_is_deterministic_and_self_contained():
    rows = [row(epoch, reward=0.5) for epoch in (1, 2, 3)]
    elements = curves_svg(rows, "CIDEr", 2)
    assert elements == curves_svg(rows, "CIDEr", 2)
    page = "".join(elements)
    assert not re.search(r"https?:|<script|<style|url\(|<!|<\?|font-family", page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r'href="([^"]*)"', page)) == {f"#{each}" for each in ids}
    assert len(page) < 60_000


def test_svg_of_a_long_training_is_small():
    rows = [row(epoch) for epoch in range(1, 501)]
    assert sum(map(len, curves_svg(rows, "CIDEr", 2))) < 300_000


def test_svg_takes_the_text_colour_of_the_page():
    """Lines keep their colours, which have a contrast of 3 to both backgrounds of the report."""
    rows = [row(epoch, **{"BLEU-2": 40.0, "BLEU-3": 30.0, "METEOR": 2.0}) for epoch in (1, 2)]
    used = {color for svg in curves_svg(rows, "CIDEr", 2) for color in re.findall("#.{6};", svg)}
    used = {color.strip(";") for color in used}
    assert used <= {curves._WATCHED, *(color for color, _ in curves._LINES.values())}
    for color in (curves._WATCHED, *(color for color, _ in curves._LINES.values())):
        for background in ("#ffffff", "#212123"):
            lighter, darker = sorted(map(luminance, (color, background)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 3, (color, background)


def luminance(color):
    """Relative luminance as defined by WCAG 2.2."""
    values = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_svg_of_logs_with_other_values():
    """A log may come from anyone: what is not a finite number is not drawn."""
    rows = [{"epoch": 1, "loss": float("nan"), "CIDEr": "text"}, {"epoch": 2, "loss": 5.0, "x": []}]
    (svg,) = curves_svg([*rows, {"loss": 1.0}, {"epoch": "<b>", "loss": 1.0}], "CIDEr", 7)
    assert len(markers(svg, curves._LINES["loss"][0])) == 1
    assert "nan" not in svg
    assert curves_svg([], "CIDEr", 0) == []
    assert curves_svg([{"loss": 1.0}], "CIDEr", 0) == []


def test_svg_escapes_names():
    (svg,) = curves_svg([{"epoch": 1, '<b>"': 1.0}], '<b>"', 1)
    assert "<b>" not in svg
    assert svg.count("&lt;b&gt;") == 3


def test_curves_leave_matplotlibs_settings_as_they_are(tmp_path):
    before = list(dict.items(matplotlib.rcParams))
    draw_curves(tmp_path / "c.png", [row(1)], "CIDEr", 1)
    curves_svg([row(1)], "CIDEr", 1)
    assert list(dict.items(matplotlib.rcParams)) == before
