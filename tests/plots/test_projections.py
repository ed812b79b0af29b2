"""Drawn projections: points, colours and markers by group, and a legend beside them."""

import io

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from captioner.errors import InputError
from captioner.plots import projections
from captioner.plots.projections import MAX_GROUPS, draw_projection

POINTS = np.array([[0, 0], [1, 0], [0, 2], [3, 1], [-1, -1]], dtype=float)
GROUPS = np.array([1, 0, 1, -1, 0])


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved, savefig = [], matplotlib.figure.Figure.savefig

    def recorded(figure, *args, **kwargs):
        saved.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    return saved


def legend_texts(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_points_are_drawn_by_group(figures, tmp_path):
    path = tmp_path / "new" / "a.png"
    draw_projection(path, POINTS, GROUPS, ["dogs", "cats"], "my title")
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "my title"
    assert legend_texts(figures[0]) == ["dogs (2)", "cats (2)", "other (1)"]
    drawn = [points.get_offsets().tolist() for points in axes.collections]
    assert drawn == [[[1, 0], [-1, -1]], [[0, 0], [0, 2]], [[3, 1]]]
    colors = [to_hex(points.get_facecolor()[0]) for points in axes.collections]
    assert colors == [*projections._COLORS[:2], "#a0a0a0"]
    assert axes.collections[2].get_zorder() < axes.collections[0].get_zorder()
    assert axes.get_aspect() == 1
    assert [each.name for each in path.parent.iterdir()] == ["a.png"]


def test_the_image_shows_the_colours(tmp_path):
    draw_projection(tmp_path / "a.png", POINTS, GROUPS, ["dogs", "cats"], "")
    image = Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).convert("RGB")
    assert image.width > image.height > 600
    colors = {color for _, color in image.getcolors(1 << 24)}
    for color in projections._COLORS[:2]:  # opaque in the legend
        assert tuple(bytes.fromhex(color[1:])) in colors


@pytest.mark.parametrize("name", ["dog", "a wonderful, extraordinarily long name " * 4, "m" * 99])
def test_the_legend_covers_no_points_and_fits(figures, tmp_path, name):
    groups = np.arange(40) % (MAX_GROUPS + 1) - 1
    points = np.random.default_rng(0).normal(size=(40, 2))
    draw_projection(tmp_path / "a.png", points, groups, [name] * MAX_GROUPS, "x" * 300)
    (axes,), figure = figures[0].axes, figures[0]
    legend = axes.get_legend().get_window_extent()
    assert not legend.overlaps(axes.bbox)
    assert legend.y0 > 0
    assert legend.y1 <= figure.bbox.y1
    if set(name) != {"m"}:  # the widest letter
        assert legend.x1 <= figure.bbox.x1
    drawn = np.concatenate([each.get_offsets() for each in axes.collections])
    dots = axes.transData.transform(drawn)
    assert len(dots) == 40
    assert all(axes.bbox.contains(*dot) for dot in dots)


def test_every_group_differs_in_colour_or_marker_and_has_contrast(figures, tmp_path):
    groups = np.arange(MAX_GROUPS)
    points = np.stack([groups, groups % 5], axis=1).astype(float)
    draw_projection(tmp_path / "a.png", points, groups, list(map(str, groups)), "")
    drawn = figures[0].axes[0].collections
    paths = {each.get_paths()[0].vertices.tobytes() for each in drawn}
    assert len(paths) == MAX_GROUPS
    for color in projections._COLORS:
        values = np.array(list(bytes.fromhex(color[1:]))) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        luminance = float(linear @ [0.2126, 0.7152, 0.0722])  # WCAG 2.2
        assert 1.05 / (luminance + 0.05) >= 3, color


def test_names_are_drawn_as_they_are(figures, tmp_path):
    names = ["_private", "$x^$", "", " \t"]  # the second is invalid as mathematics
    draw_projection(tmp_path / "a.png", POINTS, np.array([0, 1, 2, 3, 3]), names, "$x^$")
    expected = ["_private (1)", "$x^$ (1)", "(empty) (1)", "(empty) (2)"]
    assert legend_texts(figures[0]) == expected


def test_equal_calls_write_equal_files_and_settings_stay(tmp_path):
    before = list(dict.items(matplotlib.rcParams))
    for name in ("a.png", "b.png"):
        draw_projection(tmp_path / name, POINTS, GROUPS, ["dogs", "cats"], "title")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert list(dict.items(matplotlib.rcParams)) == before


@pytest.mark.parametrize(
    ("points", "groups", "labels", "message"),
    [
        (POINTS[:, :1], GROUPS, ["a", "b"], r"points must be \(N, 2\) .*, got \(5, 1\) and \(5,\)"),
        (POINTS, GROUPS[1:], ["a", "b"], r"groups \(N,\), got \(5, 2\) and \(4,\)"),
        (POINTS * np.nan, GROUPS, ["a", "b"], "points must be finite"),
        (POINTS, GROUPS, ["a"], "groups must be between -1 and 0, got -1 to 1"),
        (POINTS, GROUPS - 1, ["a", "b"], "groups must be between -1 and 1, got -2 to 0"),
        (POINTS, GROUPS, ["a"] * 13, "at most 12 groups can be distinguished, got 13"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, points, groups, labels, message):
    with pytest.raises(InputError, match=message):
        draw_projection(tmp_path / "a.png", points, groups, labels, "")
    assert not (tmp_path / "a.png").exists()
