"""captioner label and localize; captioner search, project and evaluate of a spatial model."""

import json

import numpy as np
import pytest
from PIL import Image

from captioner import Linker
from captioner.__main__ import main
from captioner.data.masks import mask_image
from captioner.errors import InputError
from tests.support import linking, spatial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return spatial.run(tmp_path_factory)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return spatial.data(tmp_path_factory) / "val"


@pytest.fixture(scope="module")
def index(run, images, tmp_path_factory):
    where = tmp_path_factory.mktemp("index")
    words = ["--output", str(where / "halves.index"), "--cache", str(where / "cache")]
    main(["index", str(images), "--checkpoint", str(run), *words, "--workers", "0"])
    return where / "halves.index"


def call(capsys, *words):
    capsys.readouterr()
    main([str(word) for word in words])
    return capsys.readouterr()


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


# ---- label ----


def test_labels_of_images(run, images, capsys):
    image = images / "100-red-green.png"
    out = call(capsys, "label", image, "--checkpoint", run, "--top", 2).out
    path, labels = out.rstrip("\n").split("\t")
    assert path == str(image)
    assert {entry.split()[0] for entry in labels.split(", ")} == {"red", "green"}


def test_chosen_labels_as_json(run, images, capsys, tmp_path):
    (tmp_path / "labels.txt").write_text("red\n\nred and blue\nblue\n")
    words = ["label", images, "--checkpoint", run, "--labels-file", tmp_path / "labels.txt"]
    lines = call(capsys, *words, "--json").out.splitlines()
    assert len(lines) == 12
    first = json.loads(lines[0])
    linker = Linker.from_pretrained(run, "cpu")
    names = ["red", "red and blue", "blue"]
    expected = dict(zip(names, linker.labels(first["image"], names)[0].tolist(), strict=True))
    assert first["labels"] == pytest.approx(expected, abs=1e-4)
    assert list(first["labels"].values()) == sorted(first["labels"].values(), reverse=True)


def test_labels_that_are_refused(run, images, capsys, tmp_path, tmp_path_factory):
    words = ["label", str(images), "--checkpoint", str(run)]
    with pytest.raises(InputError, match="the texts contain unknown words: 'zebra'"):
        main([*words, "--labels", "red", "zebra"])
    with pytest.raises(InputError, match="--top must be at least 1, got 0"):
        main([*words, "--top", "0"])
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match="contains no labels; write one per line"):
        main([*words, "--labels-file", str(tmp_path / "empty.txt")])
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for name, reason in (
        ("gone.txt", "No such file or directory$"),
        ("latin.txt", "it is not UTF"),
    ):
        with pytest.raises(InputError, match=f"{name} cannot be read: {reason}"):
            main([*words, "--labels-file", str(tmp_path / name)])
    with pytest.raises(InputError, match="the model is not spatial"):
        main([*words[:-1], str(linking.run(tmp_path_factory))])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    with pytest.raises(InputError, match="1 of 1 images could not be read; see the errors above"):
        main(["label", str(broken), "--checkpoint", str(run)])
    assert "broken.png" in capsys.readouterr().err


# ---- localize ----


def test_maps_values_masks_and_regions(run, images, capsys, tmp_path):
    image = images / "101-red-blue.png"
    words = ["localize", image, "red", "blue", "--checkpoint", run, "--output", tmp_path / "maps"]
    out = call(capsys, *words, "--npy", "--masks", "--threshold", 0.5, "--regions", 2).out
    stem = tmp_path / "maps" / "101-red-blue"
    assert pixels(f"{stem}.png").shape[1] > 300
    maps = np.load(f"{stem}.npy")
    expected = Linker.from_pretrained(run, "cpu").label_maps(image, ["red", "blue"])[0]
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert json.loads(stem.with_suffix(".json").read_text())["words"] == ["red", "blue"]
    mask = pixels(f"{stem}-mask.png")
    assert mask.shape == (32, 32)
    assert (mask[:, :12] == 1).mean() > 0.8
    assert (mask[:, 20:] == 2).mean() > 0.8
    assert "1\tred\n2\tblue\n" in out
    regions = pixels(f"{stem}-regions.png")
    assert regions.shape == (32, 32, 3)
    assert np.abs(regions[16, 2].astype(int) - regions[16, 29]).sum() > 60


def test_places_that_are_refused(run, images, tmp_path):
    words = ["localize", str(images / "101-red-blue.png"), "red", "--checkpoint", str(run)]
    words += ["--output", str(tmp_path)]
    with pytest.raises(InputError, match="--threshold must be from 0 to 1, got 2"):
        main([*words, "--threshold", "2"])
    with pytest.raises(InputError, match=r"number of regions, must be from 1 to 64, .*, got 65"):
        main([*words, "--regions", "65"])
    with pytest.raises(InputError, match="unknown words: 'zebra'"):
        main(["localize", "gone.png", "zebra", *words[3:]])


# ---- search and project ----


def test_painted_search(index, capsys, tmp_path):
    words = ["search", index, "--paint=red=left", "--paint=-red=right", "--top", 2]
    out = call(capsys, *words, "--html", tmp_path / "page.html").out.splitlines()
    assert out[0] == "query: [red=left] [-red=right]"
    assert all("-red-" in line and "red.png" not in line for line in out[1:])
    assert "with their scores" in (tmp_path / "page.html").read_text()
    both = call(capsys, "search", index, "blue", "--paint=red=left", "--top", 1, "--json").out
    found = json.loads(both)
    assert found["query"] == "blue [red=left]"
    assert "-red-blue" in found["hits"][0]["image"]


def test_paintings_that_are_refused(index, capsys):
    with pytest.raises(InputError, match=r"WORD=PLACE or -WORD=PLACE .* got 'red=up'"):
        main(["search", str(index), "--paint=red=up"])
    with pytest.raises(InputError, match="the query is missing; pass it after the index"):
        main(["search", str(index)])
    with pytest.raises(InputError, match="the query is missing; pass it, or a painting"):
        main(["search"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["--labels", "red"], "red to the right, random upwards"),
        (["--labels", "red", "--diversity"], "red to the right, diversity of regions upwards"),
        (["--labels", "red", "blue"], "red to the right, blue upwards"),
        (["--labels", "red", "green", "blue"], "among red, green, blue, clockwise from the top"),
        (["--diversity"], "diversity of regions to the right, random upwards"),
    ],
)
def test_projections_on_labels(index, capsys, tmp_path, words, title):
    out = call(capsys, "project", index, *words, "--output", tmp_path / "plane.png").out
    assert f"halves.index: 12 images ({title})" in out
    assert pixels(tmp_path / "plane.png").shape[1] == 1080
    call(capsys, "project", index, *words, "--mosaic", 200, "--output", tmp_path / "m.png")
    assert pixels(tmp_path / "m.png").shape[:2] == (200, 200)


def test_groups_of_images_among_labels(index, capsys, tmp_path):
    """Groups are numbered from the largest, and named by known words."""
    words = ["--labels", "red", "blue", "--clusters", 2, "--output", tmp_path / "plane.png"]
    lines = call(capsys, "project", index, *words).out.splitlines()
    sizes, names = zip(*(line.split(None, 1) for line in lines[:2]), strict=True)
    assert sum(map(int, sizes)) == 12
    assert int(sizes[0]) >= int(sizes[1])
    assert {word for name in names for word in name.split(", ")} <= {"red", "green", "blue"}
    assert "(red to the right, blue upwards)" in lines[2]


def test_projections_that_are_refused(index, tmp_path):
    words = ["project", str(index), "--output", str(tmp_path / "plane.png")]
    with pytest.raises(InputError, match="--diversity can be combined with only one label, got 2"):
        main([*words, "--labels", "red", "blue", "--diversity"])
    with pytest.raises(InputError, match="unknown words: 'zebra'"):
        main([*words, "--labels", "zebra"])
    with pytest.raises(InputError, match="--labels needs an index without --texts"):
        main(["project", "--texts", "x.txt", "--labels", "red"])


# ---- evaluate ----


def test_segmentation_of_masks(run, images, capsys, tmp_path):
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / "voc" / folder).mkdir(parents=True)
    (tmp_path / "voc" / "classes.txt").write_text("red\nzebra\nblue\n")
    for name in ("101-red-blue.png", "104-blue-red.png"):
        (tmp_path / "voc" / "JPEGImages" / name).write_bytes((images / name).read_bytes())
        mask = np.repeat([[1] * 16 + [3] * 16], 32, 0)
        if name.startswith("104"):
            mask = mask[:, ::-1]
        mask_image(mask).save(tmp_path / "voc" / "SegmentationClass" / name)
    words = ["evaluate", "--checkpoint", run, "--masks", tmp_path / "voc", "--output", tmp_path]
    call(capsys, *words, "--threshold", 0.3, "--no-refine")
    plain = json.loads((tmp_path / "scores.json").read_text())
    out = call(capsys, *words, "--threshold", 0.3).out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["micro_iou"] > max(0.95, plain["micro_iou"])  # the edge between the halves
    assert scores["iou"]["red"] > 0.7
    assert scores["iou"]["zebra"] is None
    assert "never predicted (unknown words): zebra" in out
    with pytest.raises(InputError, match="threshold must be from 0 to 1, got 7"):
        main([*map(str, words), "--threshold", "7"])
    (tmp_path / "voc" / "classes.txt").write_text("zebra\nyak\nemu\n")
    with pytest.raises(InputError, match=r"^all class names \(zebra, yak, emu\) contain unknown w"):
        main([*map(str, words)])


def test_evaluation_of_a_split(run, capsys, tmp_path):
    words = ["evaluate", "--checkpoint", run, "--split", "test", "--output", tmp_path]
    call(capsys, *words, "--cache", tmp_path / "cache", "--workers", 0)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["mAP_seen"] == 1
    assert set(scores["labels"]["seen"]["average_precision"]) == {"red", "green", "blue"}
    assert scores["labels"]["held_out"]["average_precision"] == {}
    assert "rsum" in scores


def test_other_systems_have_no_masks(tmp_path_factory, tmp_path):
    plain = linking.run(tmp_path_factory)
    with pytest.raises(InputError, match="--masks has no effect on a 'linear' model"):
        main(["evaluate", "--checkpoint", str(plain), "--masks", str(tmp_path)])
