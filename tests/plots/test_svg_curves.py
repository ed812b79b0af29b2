"""Curves have a point for each epoch, higher where the value is."""

import re

import pytest

from captioner.plots.svg_curves import curves


def points(figure):
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', figure)
    return [(float(x), float(y)) for x, y in found]


def test_a_figure_for_each_number_but_times():
    rows = [
        {"epoch": i, "step": 9, "loss": 4.0 / i, "words_per_second": 7, "training_seconds": 3}
        for i in (1, 2, 4)
    ]
    (figure,) = curves(rows)
    (x1, y1), (x2, y2), (x4, y4) = points(figure)
    assert x4 - x1 == pytest.approx(3 * (x2 - x1), abs=0.3)
    assert y4 - y1 == pytest.approx(1.5 * (y2 - y1), abs=0.3) and y1 < y2 < y4  # y goes down
    assert "<span>loss</span><b>1</b>" in figure and "epoch 2: 2<" in figure
    for label in ("4", "1"):
        assert f">{label}</text>" in figure


def test_what_is_no_number_is_left_out():
    rows = [{"epoch": 1, "a": float("nan"), "b": "text"}, {"epoch": 2, "a": 5.0, "c": None}]
    (figure,) = curves(rows)
    assert len(points(figure)) == 1 and "nan" not in figure
    assert curves([]) == [] and curves([{"loss": 1.0}]) == []


def test_a_constant_lies_in_the_middle():
    (figure,) = curves([{"epoch": i, "loss": 2.0} for i in (1, 2)])
    assert len({y for _, y in points(figure)}) == 1 and figure.count(">2</text>") == 2  # and epoch


def test_names_are_escaped():
    (figure,) = curves([{"epoch": 1, '<b>"': 1.0}])
    assert "<b>&" not in figure and "&lt;b&gt;&quot;" in figure


def test_small_numbers_have_room_beside_the_curve():
    (figure,) = curves([{"epoch": i, "rate": 1.2345e-5 * i} for i in (1, 2)])
    labels = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end">([^<]+)<', figure)
    assert [text for _, text in labels] == ["1.234e-05", "2.469e-05"]
    assert all(float(x) >= 6.4 * len(text) for x, text in labels)  # digits are 6.4 wide at most
