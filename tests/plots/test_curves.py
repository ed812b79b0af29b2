"""The image of a training's curves: which panels it has, and what is in them."""

import io

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from captioner.plots.curves import draw_curves

SCORES = {"BLEU-1": 60.0, "BLEU-4": 20.0, "ROUGE-L": 45.0, "CIDEr": 50.0, "distinct": 70.0}


def row(epoch, **more):
    numbers = {"loss": 3.0 / epoch, "cross_entropy": 2.0 / epoch, "learning_rate": 1e-3 / epoch}
    return {"epoch": epoch, "step": 9 * epoch, "words_per_second": 7.0, **numbers, **SCORES, **more}


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are saved, by axes' title: what lines they have."""
    found, save = {}, matplotlib.figure.Figure.savefig

    def saved(figure, *args, **kwargs):
        for axes in figure.axes:
            lines = {line.get_label(): line for line in axes.lines}
            found[axes.get_title(loc="left")] = {
                name: (list(line.get_xdata()), list(line.get_ydata()))
                for name, line in lines.items()
            }
        found["heading"] = figure.get_suptitle()
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saved)
    return found


def named(lines):
    return {name for name in lines if not name.startswith("_")}


def test_a_panel_for_each_kind_of_number(drawn, tmp_path):
    path = tmp_path / "mine" / "curves.png"
    path.parent.mkdir()
    rows = [row(epoch, **{"BLEU-4": score}) for epoch, score in ((1, 8.0), (2, 20.0), (3, 19.0))]
    draw_curves(path, rows, "BLEU-4", 2)
    assert drawn["heading"] == "mine: 3 epochs; best: epoch 2, BLEU-4 20.00"
    assert named(drawn["loss per word"]) == {"loss", "cross entropy"}
    assert drawn["loss per word"]["cross entropy"] == ([1, 2, 3], [2.0, 1.0, 2 / 3])
    assert drawn["validation BLEU-4"]["BLEU-4"] == ([1, 2, 3], [8.0, 20.0, 19.0])
    rings = [points for points in drawn["validation BLEU-4"].values() if points == ([2], [20.0])]
    assert len(rings) == 1
    assert named(drawn["other scores"]) == {"BLEU-1", "ROUGE-L"}
    assert named(drawn["CIDEr"]) == {"CIDEr"} and named(drawn["captions, %"]) == {"distinct"}
    assert drawn["learning rate, where the epoch ended"]["learning rate"][1][1] == 5e-4
    assert not {"reward", "words_per_second", "step"} & drawn.keys()
    for panel in drawn.keys() - {"heading", ""}:  # the best epoch is marked in all
        assert any(points[0] == [2, 2] for points in drawn[panel].values())
    image = Image.open(io.BytesIO(path.read_bytes()))
    assert image.width == 1200 and np.asarray(image.convert("L")).min() < 50
    assert [each.name for each in path.parent.iterdir()] == ["curves.png"]


def test_the_watched_score_has_its_own_panel_and_no_other(drawn, tmp_path):
    draw_curves(tmp_path / "c.png", [row(1, reward=0.5)], "CIDEr", 1)
    assert named(drawn["validation CIDEr"]) == {"CIDEr"} and "CIDEr" not in drawn
    assert "BLEU-4" in drawn["other scores"] and named(drawn["reward"]) == {"reward"}
    assert drawn["heading"].endswith(": 1 epoch; best: epoch 1, CIDEr 50.00")


def test_numbers_that_are_missing_or_none(drawn, tmp_path):
    """As rows of older logs are, and scores that are no numbers."""
    rows = [row(1, loss=float("nan")), row(2, loss=None), row(3)]
    for each in rows[:2]:
        del each["learning_rate"]
    draw_curves(tmp_path / "c.png", rows, "BLEU-4", 0)
    loss = drawn["loss per word"]["loss"][1]
    assert np.isnan(loss[:2]).all() and loss[2] == 1
    rates = drawn["learning rate, where the epoch ended"]["learning rate"][1]
    assert np.isnan(rates[:2]).all() and rates[2] == pytest.approx(1e-3 / 3)
    assert "best" not in drawn["heading"]
