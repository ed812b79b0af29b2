"""The generated data set that ships with the library: coloured shapes, captions, and boxes.

Here live the scenes, the grammar and the files; the reader of captions does not: the files are in
COCO's format, which it takes anyway.
"""

import json
import random
from collections.abc import Sequence
from itertools import chain, combinations, pairwise, product
from pathlib import Path

from PIL import Image, ImageStat
from tqdm import tqdm

from ...atomic_io import atomic_directory
from ...errors import InputError
from .shapes import (
    COLORS,
    KINDS,
    PLURALS,
    SIDE,
    SIZES,
    TEXTURES,
    Box,
    DrawnShape,
    draw_background,
    draw_shape,
)

VERSION = 6  # of the generator: raise it whenever the same arguments give other files
GAP, MARGIN = 8, 2  # least distance between two shapes, and to the edge, in pixels
SPLITS = ("train", "val", "test")
# Kind, colour and texture combine in 108 ways. Nine of these only val draws, and nine others only
# test; each kind comes in each texture once among the eighteen, and never twice in one colour.
HELD_OUT: dict[str, list[tuple[str, str, str]]] = {"train": [], "val": [], "test": []}
for (_i, _kind), (_k, _texture) in product(enumerate(KINDS), enumerate(TEXTURES)):
    _j = (_k - _i) % 6
    HELD_OUT["test" if _j % 2 else "val"].append((_kind, tuple(COLORS)[_j], _texture))
SEEN = sorted({*product(KINDS, COLORS, TEXTURES)} - {*HELD_OUT["val"], *HELD_OUT["test"]})
# How many identical shapes in each group, and how often: one shape, a relation, a count, three.
LAYOUTS = {(1,): 9, (1, 1): 5, (2,): 2, (3,): 2, (2, 1): 1, (1, 1, 1): 1}
PLACES = (
    ("in the top left", "at the top", "in the top right"),
    ("on the left", "in the middle", "on the right"),
    ("in the bottom left", "at the bottom", "in the bottom right"),
)
RELATIONS = (
    ("to the left of", "to the right of", "from left to right"),
    ("above", "below", "from top to bottom"),
)

Look = tuple[str, str, str, str]  # kind, colour, size, texture


# --- captions -------------------------------------------------------------------------------------


def _phrase(group: Sequence[DrawnShape], without: str = "") -> str:
    """The noun phrase of identical shapes, `without` their "size" or "texture"."""
    shape = group[0]
    words = [] if without == "size" else [shape.size]
    words += [] if without == "texture" or shape.texture == "solid" else [shape.texture]
    words += [shape.color, shape.kind if len(group) == 1 else PLURALS[shape.kind]]
    article = "an" if words[0] == "orange" else "a"
    return " ".join([(article, "two", "three")[len(group) - 1], *words])


def _place(box: Box) -> str | None:
    """Where in the image the middle of a box is, None near the border between two places."""
    thirds = []
    for low, high in ((box[1], box[3]), (box[0], box[2])):
        middle = (low + high) / 2 / SIDE
        near = [i for i, (a, b) in enumerate(((0, 0.3), (0.4, 0.6), (0.7, 1))) if a <= middle <= b]
        thirds += near
    return PLACES[thirds[0]][thirds[1]] if len(thirds) == 2 else None


def _line(groups: Sequence[Sequence[DrawnShape]]) -> tuple[int, list[Sequence[DrawnShape]]] | None:
    """The groups in order as a clear row (0, left to right) or column (1, top to bottom)."""

    def ends(group: Sequence[DrawnShape], axis: int) -> tuple[int, int]:
        return min(s.box[axis] for s in group), max(s.box[axis + 2] for s in group)

    for axis in (0, 1):
        order = sorted(groups, key=lambda group: ends(group, axis))
        spans = [ends(group, axis) for group in order]
        across = [sum(ends(group, 1 - axis)) for group in order]
        apart = all(b[0] - a[1] >= GAP for a, b in pairwise(spans))
        if apart and sum(spans[-1]) - sum(spans[0]) >= 2 * (max(across) - min(across)):
            return axis, order
    return None


def _captions(groups: Sequence[Sequence[DrawnShape]]) -> list[str] | None:
    """Five true captions of a scene, None where its geometry leaves what to say in doubt."""
    if len(groups) > 1:
        line = _line(groups)
        if line is None:
            return None
        axis, groups = line
        before, after, along = RELATIONS[axis]
    full, sizeless, bare = (
        [_phrase(group, without) for group in groups] for without in ("", "size", "texture")
    )
    if len(groups) == 2:
        x, y = full
        said = [f"{x} {before} {y}", f"{y} {after} {x}", f"{x} and {y}"]
        said += [f" {before} ".join(sizeless), f" {before} ".join(bare)]
        said += [f" {after} ".join(reversed(sizeless))]
    elif len(groups) == 3:
        all3, sizeless3, bare3 = (f"{x}, {y} and {z}" for x, y, z in (full, sizeless, bare))
        said = [all3, f"{all3} {along}", sizeless3, bare3, f"{sizeless3} {along}"]
        said += [f"there are {all3}"]
    elif len(groups[0]) == 1:
        place = _place(groups[0][0].box)
        if place is None:
            return None
        said = [full[0], f"{full[0]} {place}", f"there is {full[0]} {place}"]
        said += [f"{sizeless[0]} {place}", f"{bare[0]} {place}", f"there is {sizeless[0]} {place}"]
    else:
        said = [full[0], f"there are {full[0]}", sizeless[0], bare[0], f"there are {sizeless[0]}"]
        said += [f"a picture of {full[0]}"]
    return list(dict.fromkeys(said))[:5]  # where nothing has a texture, "bare" repeats another


# --- scenes ---------------------------------------------------------------------------------------


def _apart(a: Box, b: Box) -> bool:
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) >= GAP


def _put(rng: random.Random, look: Look, stamp: Image.Image) -> DrawnShape:
    """A shape of this look and the stamp's size, anywhere in the image."""
    x, y = (rng.randint(MARGIN, SIDE - MARGIN - length) for length in stamp.size)
    return DrawnShape(*look, (x, y, x + stamp.width, y + stamp.height))


def _scene(rng: random.Random, split: str) -> tuple[list[DrawnShape], list[Image.Image], list[str]]:
    """The shapes of a scene, their stamps, and the captions."""
    counts = rng.choices(tuple(LAYOUTS), tuple(LAYOUTS.values()))[0]
    while True:
        triples = rng.sample(SEEN, len(counts))
        if HELD_OUT[split]:
            triples[rng.randrange(len(triples))] = rng.choice(HELD_OUT[split])
        kinds, colors, _ = zip(*triples, strict=True)
        if len(set(kinds)) < len(kinds) or len(set(colors)) < len(colors):
            continue  # what differs, differs at a glance
        looks = [(k, c, rng.choice(tuple(SIZES)), t) for k, c, t in triples]
        both = list(zip(looks, counts, strict=True))
        stamps = [[draw_shape(rng, *look) for _ in range(count)] for look, count in both]
        for _ in range(100):  # places for these; then others, as some hardly ever fit
            groups = [
                [_put(rng, look, stamp) for stamp in group]
                for look, group in zip(looks, stamps, strict=True)
            ]
            shapes = list(chain.from_iterable(groups))
            if all(_apart(a.box, b.box) for a, b in combinations(shapes, 2)):
                captions = _captions(groups)
                if captions:
                    return shapes, list(chain.from_iterable(stamps)), captions


def _write_split(directory: Path, split: str, count: int, seed: int) -> None:
    """One split's images and its two annotation files."""
    (directory / split).mkdir()
    images, captions, instances = [], [], []
    for number in tqdm(range(1, count + 1), desc=f"drawing {split}", unit="scene"):
        rng = random.Random(f"{seed} {split} {number}")  # no scene depends on another
        image = draw_background(rng)
        shapes, stamps, texts = _scene(rng, split)
        image_id = SPLITS.index(split) * 1_000_000 + number
        name = f"{number:06}.png"
        images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
        for i, text in enumerate(texts):
            captions.append({"id": 10 * image_id + i, "image_id": image_id, "caption": text})
        for i, (shape, stamp) in enumerate(zip(shapes, stamps, strict=True)):
            x0, y0, x1, y1 = shape.box
            image.paste(stamp, (x0, y0), stamp)
            instances.append(
                {
                    "id": 10 * image_id + i,
                    "image_id": image_id,
                    "category_id": KINDS.index(shape.kind) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": ImageStat.Stat(stamp.getchannel("A")).sum[0] / 255,
                    "iscrowd": 0,
                    "attributes": {k: getattr(shape, k) for k in ("color", "size", "texture")},
                }
            )
        image.save(directory / split / name, compress_level=3)
    head = {"info": {"description": "shapes", "version": VERSION}, "licenses": [], "images": images}
    categories = [{"id": i, "name": kind} for i, kind in enumerate(KINDS, 1)]
    for name, body in (
        ("captions", head | {"annotations": captions}),
        ("instances", head | {"annotations": instances, "categories": categories}),
    ):
        path = directory / "annotations" / f"{name}_{split}.json"
        path.write_text(json.dumps(body), encoding="utf-8")


def _holds(directory: Path, arguments: dict[str, int]) -> bool:
    """Whether a whole demo data set of these arguments lies there."""
    try:
        found = json.loads((directory / "demo.json").read_text(encoding="utf-8"))
        drawn = {split: len(list((directory / split).glob("*.png"))) for split in SPLITS}
    except (OSError, ValueError):
        return False
    return found == arguments and all(drawn[split] == arguments[split] for split in SPLITS)


def write_demo(
    directory: Path, *, train: int = 4000, val: int = 300, test: int = 300, seed: int = 0
) -> None:
    """Draw and caption the shapes data set into `directory`, whole or not at all.

    The same arguments give the same files, and no split depends on how many scenes another has.
    `<split>/000001.png` ... are images of 128 x 128; `annotations/captions_<split>.json` and
    `annotations/instances_<split>.json` are in COCO's format. Every image of val and test shows
    a triple of kind, colour and texture that no other split has. Returns at once when all of it is
    there. Raises InputError when `directory` holds anything else.
    """
    directory = Path(directory).resolve()
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if not 0 <= count < 1_000_000:
            raise InputError(f"{split} must be from 0 to 999999 scenes, got {count}")
    arguments = {**counts, "seed": seed, "version": VERSION}
    if _holds(directory, arguments):
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            f"{directory} holds something other than this demo data set ({arguments}); "
            "remove it or name an empty directory"
        )
    try:
        with atomic_directory(directory, replace=False) as draft:
            (draft / "annotations").mkdir()
            for split, count in counts.items():
                _write_split(draft, split, count, seed)
            (draft / "demo.json").write_text(json.dumps(arguments), encoding="utf-8")
    except OSError:  # another process may have been quicker
        if not _holds(directory, arguments):
            raise


def read_shapes(root: Path, split: str) -> dict[int | str, list[DrawnShape]]:
    """The shapes of each image by image id; empty where `root` holds no demo data set."""
    shapes: dict[int | str, list[DrawnShape]] = {}
    try:
        text = (Path(root) / "annotations" / f"instances_{split}.json").read_text(encoding="utf-8")
        content = json.loads(text)
        kinds = {category["id"]: category["name"] for category in content["categories"]}
        for item in content["annotations"]:
            x, y, width, height = item["bbox"]
            box = (x, y, x + width, y + height)
            shape = DrawnShape(kinds[item["category_id"]], box=box, **item["attributes"])
            shapes.setdefault(item["image_id"], []).append(shape)
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return {}  # other instances, or none
    return shapes
