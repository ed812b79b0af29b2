"""The demo data set on disk: images, captions and boxes in COCO's format."""

import json
import random
from pathlib import Path
from typing import Any

from PIL import ImageStat

from ...atomic_io import atomic_directory
from ...console import progress_bar
from ...errors import InputError
from ..dataset import SPLITS
from ..storage.location import Location
from .scenes import Scene, sample_scene
from .shapes import KINDS, SIDE, DrawnShape, draw_background

VERSION = 6  # of the generator; increase it if the same arguments produce different files


def write_demo(
    directory: Path, *, train: int = 4000, val: int = 300, test: int = 300, seed: int = 0
) -> None:
    """Write the demo data set of captioned shapes to `directory`, completely or not at all.

    train, val, test: number of scenes, at most 999,999. The same arguments produce the same files,
    and no split depends on the sizes of the others. `<split>/000001.png` ... are images of 128 x
    128 pixels; `annotations/captions_<split>.json` and `annotations/instances_<split>.json` are in
    COCO's format. Every image of val and test contains a combination of kind, colour and texture
    that occurs in no other split. Returns at once if `directory` already contains this data set;
    raises InputError if it contains anything else, or if a number is out of range.
    """
    directory = Path(directory).resolve()
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if not 0 <= count < 1_000_000:
            raise InputError(f"{split} must be between 0 and 999,999 scenes, got {count:,}")
    arguments = {**counts, "seed": seed, "version": VERSION}
    if _is_complete(directory, arguments):
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(
            f"{directory} exists, but is not a complete demo data set with "
            f"{', '.join(f'{name} {value}' for name, value in arguments.items())}; delete it, or "
            "choose another directory"
        )
    try:
        with atomic_directory(directory, replace=False) as draft:
            (draft / "annotations").mkdir()
            for split, count in counts.items():
                _write_split(draft, split, count, seed)
            (draft / "demo.json").write_text(json.dumps(arguments), encoding="utf-8")
    except OSError:  # another process may have finished first
        if not _is_complete(directory, arguments):
            raise


def read_shapes(root: Path | Location, split: str) -> dict[int | str, list[DrawnShape]]:
    """Return the shapes of a split's images by image id, or {} if `root` is not a demo data set."""
    shapes: dict[int | str, list[DrawnShape]] = {}
    try:
        text = (Path(str(root)) / "annotations" / f"instances_{split}.json").read_text(
            encoding="utf-8"
        )
        content = json.loads(text)
        kinds = {category["id"]: category["name"] for category in content["categories"]}
        for item in content["annotations"]:
            x, y, width, height = item["bbox"]
            box = (x, y, x + width, y + height)
            shape = DrawnShape(kinds[item["category_id"]], box=box, **item["attributes"])
            shapes.setdefault(item["image_id"], []).append(shape)
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return {}  # the file is missing or not from the demo
    return shapes


def _is_complete(directory: Path, arguments: dict[str, int]) -> bool:
    """Return whether `directory` contains the complete demo data set for these arguments."""
    try:
        found = json.loads((directory / "demo.json").read_text(encoding="utf-8"))
        drawn = {split: len(list((directory / split).glob("*.png"))) for split in SPLITS}
    except (OSError, ValueError):
        return False
    return found == arguments and all(drawn[split] == arguments[split] for split in SPLITS)


def _write_split(directory: Path, split: str, count: int, seed: int) -> None:
    """Write the images of one split and its two annotation files."""
    (directory / split).mkdir()
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for number in progress_bar(range(1, count + 1), desc=f"drawing {split}", unit="scene"):
        rng = random.Random(f"{seed} {split} {number}")  # independent of other scenes
        image = draw_background(rng)
        scene = sample_scene(rng, split)
        for shape, stamp in zip(scene.shapes, scene.stamps, strict=True):
            image.paste(stamp, shape.box[:2], stamp)
        image_id = SPLITS.index(split) * 1_000_000 + number
        name = f"{number:06}.png"
        image.save(directory / split / name, compress_level=3)
        images.append({"id": image_id, "file_name": name, "width": SIDE, "height": SIDE})
        captions += [
            {"id": 10 * image_id + i, "image_id": image_id, "caption": caption}
            for i, caption in enumerate(scene.captions)
        ]
        instances += _instances(image_id, scene)
    head = {"info": {"description": "shapes", "version": VERSION}, "licenses": [], "images": images}
    categories = [{"id": i, "name": kind} for i, kind in enumerate(KINDS, 1)]
    for name, body in (
        ("captions", head | {"annotations": captions}),
        ("instances", head | {"annotations": instances, "categories": categories}),
    ):
        path = directory / "annotations" / f"{name}_{split}.json"
        path.write_text(json.dumps(body), encoding="utf-8")


def _instances(image_id: int, scene: Scene) -> list[dict[str, Any]]:
    """Return the COCO instances of a scene's shapes."""
    instances = []
    for i, (shape, stamp) in enumerate(zip(scene.shapes, scene.stamps, strict=True)):
        x0, y0, x1, y1 = shape.box
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
    return instances
