"""The demo data set: its captions are parsed and compared with the boxes and the pixels."""

import json
import random
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from captioner.data.demo.dataset import read_shapes, write_demo
from captioner.data.demo.scenes import HELD_OUT, SEEN, sample_scene
from captioner.data.demo.shapes import COLORS, KINDS, TEXTURES, draw_background, draw_shape
from captioner.errors import InputError
from captioner.metrics.pointing import mentions

COUNTS = {"train": 80, "val": 30, "test": 30}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "demo"
    write_demo(directory, **COUNTS)
    return directory


def captions_of(root, split):
    content = json.loads((root / "annotations" / f"captions_{split}.json").read_text())
    captions = defaultdict(list)
    for annotation in content["annotations"]:
        captions[annotation["image_id"]].append(annotation["caption"])
    return captions


def scenes(root):
    for split in COUNTS:
        captions, shapes = captions_of(root, split), read_shapes(root, split)
        assert len(captions) == len(shapes) == COUNTS[split]
        for image_id in captions:
            yield split, captions[image_id], shapes[image_id]


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# --- the captions, parsed by an independent grammar -----------------------------------------------

NOUN = r"(?:circle|square|triangle|star|heart)s?|cross(?:es)?"
PHRASE = re.compile(
    r"(?P<count>an?|two|three)(?: (?P<size>small|large))?(?: (?P<texture>striped|dotted))?"
    rf" (?P<color>red|green|blue|yellow|purple|orange) (?P<kind>{NOUN})"
)
SINGULAR = {noun + "s": noun for noun in ("circle", "square", "triangle", "star", "heart")}
SINGULAR["crosses"] = "cross"
CAPTION = re.compile(
    r"(?P<opening>there is |there are |a picture of )?(?P<body>.*?)"
    r"(?P<place> (?:in|at|on) the [a-z ]+)?(?P<order> from [a-z ]+)?"
)


def referents(text, shapes):
    """The shapes that a noun phrase describes, which must be exactly as many as it says."""
    phrase = PHRASE.fullmatch(text)
    assert phrase, text
    number = {"a": 1, "an": 1, "two": 2, "three": 3}[phrase["count"]]
    assert (phrase["count"] == "an") == bool(re.match("an? orange", text))
    kind, plural = SINGULAR.get(phrase["kind"], phrase["kind"]), phrase["kind"] in SINGULAR
    assert plural == (number > 1)
    found = [
        shape
        for shape in shapes
        if shape.kind == kind
        and shape.color == phrase["color"]
        and phrase["size"] in (None, shape.size)
        and phrase["texture"] in (None, shape.texture)
    ]
    assert len(found) == number, f"{text!r} does not describe {shapes}"
    return found


def left(a, b):
    return all(x.box[2] < y.box[0] for x in a for y in b)


def above(a, b):
    return all(x.box[3] < y.box[1] for x in a for y in b)


HOLDS = {  # whether a relation is true of two groups
    "to the left of": left,
    "to the right of": lambda a, b: left(b, a),
    "above": above,
    "below": lambda a, b: above(b, a),
    "and": lambda a, b: left(a, b) or above(a, b),
}


def check(caption, shapes):
    """Fail unless the caption is true and unambiguous and mentions all shapes."""
    parts = CAPTION.fullmatch(caption)
    relation = re.split(r" (to the left of|to the right of|above|below|and) ", parts["body"])
    if len(relation) == 1:
        groups = [referents(relation[0], shapes)]
    else:
        groups = [referents(text, shapes) for text in (*relation[0].split(", "), relation[2])]
        assert all(HOLDS[relation[1]](a, b) for a, b in pairwise(groups)), caption
    mentioned = [shape for group in groups for shape in group]
    assert sorted(mentioned, key=repr) == sorted(shapes, key=repr), caption
    if parts["opening"] == "there is ":
        assert len(shapes) == 1
    elif parts["opening"] == "there are ":
        assert len(shapes) > 1
    if parts["order"]:
        before = {" from left to right": left, " from top to bottom": above}[parts["order"]]
        assert len(groups) == 3, caption
        assert all(before(a, b) for a, b in pairwise(groups)), caption
    if parts["place"]:
        (shape,) = shapes
        x0, y0, x1, y1 = shape.box
        column, row = (x0 + x1) / 2 * 3 / 128, (y0 + y1) / 2 * 3 / 128
        words = set(parts["place"].split())
        assert ("left" in words) == (column < 1), caption
        assert ("right" in words) == (column > 2), caption
        assert ("top" in words) == (row < 1), caption
        assert ("bottom" in words) == (row > 2), caption


def test_captions_are_true_and_mention_all_shapes(root):
    for _, captions, shapes in scenes(root):
        for caption in captions:
            check(caption, shapes)


def test_the_check_rejects_false_captions(root):
    rejected = Counter()
    swaps = [
        ("the left", "the right"),
        ("above", "below"),
        ("the top", "the bottom"),
        ("two", "three"),
    ]
    swaps += [("small", "large"), ("striped", "dotted"), ("red", "blue"), ("circle", "heart")]
    for _, captions, shapes in scenes(root):
        for caption, (old, new) in ((c, swap) for c in captions for swap in swaps):
            if re.search(rf"\b{old}\b", caption):
                with pytest.raises(AssertionError):
                    check(caption.replace(old, new), shapes)
                rejected[old] += 1
    assert set(rejected) == {old for old, _ in swaps}


def test_five_different_captions_from_a_small_vocabulary(root):
    words = Counter()
    for _, captions, shapes in scenes(root):
        assert len(captions) == len(set(captions)) == 5
        for shape in shapes:
            looks = {shape.size, shape.texture} - {"solid"}
            assert looks <= set(captions[0].split())
            assert all(any(look not in c.split() for c in captions) for look in looks)
        for caption in captions:
            assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", caption)
            words.update(caption.replace(",", "").split())
    assert len(words) <= 50
    assert "solid" not in words


def test_frequencies_of_the_types_of_scenes():
    types = Counter()
    for number in range(200):
        shapes, _, captions = sample_scene(random.Random(number), "train")
        types[len(shapes), len({(shape.color, shape.kind) for shape in shapes})] += 1
        assert captions
    shares = {(1, 1): 9, (2, 2): 5, (2, 1): 2, (3, 1): 2, (3, 2): 1, (3, 3): 1}
    assert types.keys() == shares.keys()
    assert all(abs(types[key] / 200 - share / 20) < 0.08 for key, share in shares.items())


# --- the splits -----------------------------------------------------------------------------------


def test_every_scene_of_val_and_test_has_a_combination_that_no_other_split_has(root):
    val, test = (set(HELD_OUT[split]) for split in ("val", "test"))
    allowed = {"train": set(), "val": val, "test": test}
    for split, _, shapes in scenes(root):
        looks = {(shape.kind, shape.color, shape.texture) for shape in shapes}
        assert not looks & (val | test) - allowed[split]
        assert split == "train" or looks & allowed[split]


def test_training_sees_every_pair_of_kind_color_and_texture():
    assert len(SEEN) == 90
    assert all(len(HELD_OUT[split]) == 9 for split in ("val", "test"))
    for omitted, (values, minimum) in enumerate(((6, 5), (6, 5), (3, 2))):
        pairs = Counter(tuple(np.delete(look, omitted)) for look in SEEN)
        assert len(pairs) == 108 // values
        assert min(pairs.values()) == minimum


# --- the images -----------------------------------------------------------------------------------


def test_boxes_are_tight_apart_and_inside(root):
    for split in COUNTS:
        for image_id, shapes in read_shapes(root, split).items():
            number = image_id % 1_000_000
            with Image.open(root / split / f"{number:06}.png") as image:
                assert image.mode == "RGB"
                assert image.size == (128, 128)
                drawn = np.asarray(image).astype(int)
            empty = np.asarray(draw_background(random.Random(f"0 {split} {number}")))
            drawn = (drawn != empty).any(axis=2)
            for shape in shapes:
                x0, y0, x1, y1 = shape.box
                assert 2 <= x0 < x1 <= 126
                assert 2 <= y0 < y1 <= 126
                low, high = {"small": (28, 33), "large": (48, 55)}[shape.size]
                assert low <= max(x1 - x0, y1 - y0) <= high
                ys, xs = np.nonzero(drawn[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2])
                assert (xs.min(), ys.min(), xs.max(), ys.max()) == (2, 2, x1 - x0 + 1, y1 - y0 + 1)
                drawn[y0:y1, x0:x1] = False
            assert not drawn.any()
            for a, b in combinations((shape.box for shape in shapes), 2):
                assert max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= 8


def test_the_drawn_pixels_have_the_color_and_the_texture():
    paints = np.array([paint for paint, _ in COLORS.values()])
    for number in range(72):
        rng = random.Random(number)
        kind, color = KINDS[number % 6], list(COLORS)[number // 6 % 6]
        size, texture = rng.choice(("small", "large")), TEXTURES[rng.randrange(3)]
        stamp = np.asarray(draw_shape(rng, kind, color, size, texture)).astype(int)
        pixels = stamp[stamp[..., 3] == 255][:, :3]
        ink = np.abs(pixels - COLORS[color][1]).max(axis=1) < 60
        assert 0.08 < ink.mean() < 0.6 if texture != "solid" else not ink.any()
        nearest = np.abs(pixels[~ink][:, None] - paints).sum(axis=2).argmin(axis=1)
        assert Counter(nearest.tolist()).most_common(1)[0][0] == list(COLORS).index(color)


def test_kinds_differ_in_outline():
    masks = []
    for kind in KINDS:
        stamp = draw_shape(random.Random(0), kind, "red", "large", "solid")
        masks.append(np.asarray(stamp.getchannel("A").resize((40, 40))) > 127)
    for a, b in combinations(masks, 2):
        assert (a & b).sum() / (a | b).sum() < 0.85


# --- the files ------------------------------------------------------------------------------------


def test_same_arguments_give_the_same_bytes_and_splits_are_independent(tmp_path):
    write_demo(tmp_path / "a", train=6, val=2, test=2, seed=3)
    write_demo(tmp_path / "b", train=6, val=2, test=2, seed=3)
    write_demo(tmp_path / "c", train=3, val=2, test=0, seed=3)
    write_demo(tmp_path / "d", train=6, val=2, test=2, seed=4)
    a, b, c, d = (files(tmp_path / name) for name in "abcd")
    assert a == b
    assert len(a) == 10 + 6 + 1
    kept = [name for name in a if "val" in name or (name.startswith("train/00000") and name in c)]
    assert len(kept) == 2 + 2 + 3
    assert all(a[name] == c[name] for name in kept)
    assert a["train/000001.png"] != d["train/000001.png"] != d["train/000002.png"]


def test_pycocotools_reads_the_files(root):
    image_ids = []
    for split in COUNTS:
        captions = COCO(root / "annotations" / f"captions_{split}.json")
        assert "categories" not in captions.dataset  # an empty list would be a KeyError
        assert all(type(id) is int for id in (*captions.imgs, *captions.anns))
        instances = COCO(root / "annotations" / f"instances_{split}.json")
        assert captions.getImgIds() == instances.getImgIds()
        assert {c["name"] for c in instances.loadCats(instances.getCatIds())} == set(KINDS)
        for image in captions.loadImgs(captions.getImgIds()):
            assert (root / split / image["file_name"]).is_file()
            assert len(captions.getAnnIds(image["id"])) == 5
        for item in instances.loadAnns(instances.getAnnIds()):
            assert 0.2 < item["area"] / (item["bbox"][2] * item["bbox"][3]) <= 1
        image_ids += captions.getImgIds()
    assert len(image_ids) == len(set(image_ids)) == sum(COUNTS.values())


def test_a_complete_data_set_is_not_written_again(root, capsys):
    (root / "train" / ".hidden").touch()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    write_demo(root, **COUNTS)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert "drawing" not in capsys.readouterr().err


def test_progress_goes_to_stderr_if_it_is_a_terminal(tmp_path, capsys, monkeypatch):
    write_demo(tmp_path / "demo", train=1, val=1, test=1)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write_demo(tmp_path / "again", train=1, val=1, test=1)
    out, err = capsys.readouterr()
    assert not out
    assert "drawing train" in err


def test_the_directory_may_be_empty_or_lack_its_parents(tmp_path):
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "new" / "demo"):
        write_demo(directory, train=1, val=1, test=1)
        assert len(read_shapes(directory, "val")) == 1


def test_a_failure_leaves_no_files(tmp_path, monkeypatch):
    save, calls = Image.Image.save, []

    def fail_at_fifth(image, path, **options):
        calls.append(path)
        if len(calls) == 5:
            raise OSError("disk full")
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", fail_at_fifth)
    with pytest.raises(OSError, match="disk full"):
        write_demo(tmp_path / "demo", train=3, val=3, test=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("same", [True, False])
def test_a_second_writer_may_finish_first(tmp_path, monkeypatch, same):
    """The first one then succeeds only if the arguments were the same."""
    save, target = Image.Image.save, tmp_path / "demo"

    def save_late(image, path, **options):
        monkeypatch.setattr(Image.Image, "save", save)
        write_demo(target, train=2, val=1, test=1, seed=0 if same else 1)
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", save_late)
    if same:
        write_demo(target, train=2, val=1, test=1)
    else:
        with pytest.raises(OSError, match="demo"):
            write_demo(target, train=2, val=1, test=1)
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_with_anything_else_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    write_demo(tmp_path / "demo", train=2, val=1, test=1)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "demo.json").write_text("{")
    write_demo(tmp_path / "short", train=2, val=1, test=2)
    (tmp_path / "short" / "train" / "000001.png").unlink()
    before = files(tmp_path)
    for name in ("photos", "file", "demo", "damaged", "short"):
        with pytest.raises(
            InputError, match=f"{name} exists, but is not a complete demo data set with train"
        ):
            write_demo(tmp_path / name, train=2, val=1, test=2)
    assert files(tmp_path) == before


@pytest.mark.parametrize("count", [-1, 1_000_000])
def test_invalid_counts(tmp_path, count):
    with pytest.raises(
        InputError, match=f"val must be between 0 and 999,999 scenes, got {count:,}"
    ):
        write_demo(tmp_path / "demo", val=count)
    assert not list(tmp_path.iterdir())


def test_read_shapes_of_other_data_sets_is_empty(tmp_path):
    item = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1.5, 2, 3, 4], "area": 9}
    content = {"categories": [{"id": 3, "name": "dog"}], "annotations": [item]}
    path = tmp_path / "annotations" / "instances_val.json"
    assert read_shapes(tmp_path, "val") == read_shapes(Path(__file__), "val") == {}
    path.parent.mkdir()
    for text in (
        json.dumps(content),
        json.dumps(content | {"annotations": [item | {"attributes": {"occluded": False}}]}),
        json.dumps([item]),
        "{",
    ):
        path.write_text(text)
        assert read_shapes(tmp_path, "val") == {}


def test_pointing_finds_all_shapes_in_every_caption(root):
    for _, captions, shapes in scenes(root):
        for caption in captions:
            boxes = [
                box for _, b in mentions(caption.replace(",", "").split(), shapes) for box in b
            ]
            assert sorted(boxes) == sorted(shape.box for shape in shapes)
