"""Scores of label maps against masks of objects, and against masks and boxes of the demo.

Shapes: L labels, C classes, (h, w) grid, (H, W) pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.dataset import CaptionData
from ...data.demo import dataset as demo
from ...data.demo.masks import draw_masks
from ...data.demo.shapes import KINDS, PLURALS
from ...data.images import load_image
from ...data.masks import SegmentedImages
from ...errors import InputError
from ...linker import Linker
from ...metrics.pointing import Pointing, pointing
from ...metrics.segmentation import Segmentation, segmentation
from ...plots.overlays import upsample
from ...refinement import refine
from ...regions import segment
from ...text.tokenizer import split_words

AT_ONCE = 32  # images


@dataclass(frozen=True)
class SegmentScores:
    """Intersections over union of the classes, and pointing accuracy if there are boxes.

    threshold: map value below which a pixel is background. left_out: classes that are never
    predicted, because their names contain unknown words.
    """

    classes: tuple[str, ...]
    masks: Segmentation
    threshold: float
    left_out: tuple[str, ...] = ()
    pointing: Pointing | None = None

    @property
    def content(self) -> dict[str, Any]:
        """The content of scores.json."""
        ious = dict(zip(("background", *self.classes), self.masks.ious.tolist(), strict=True))
        content: dict[str, Any] = {
            "mean_iou": self.masks.mean_iou,
            "micro_iou": self.masks.micro_iou,
            "threshold": self.threshold,
            "iou": {name: None if value != value else value for name, value in ious.items()},
        }
        if self.pointing is not None and self.pointing.count:
            content["pointing"] = self.pointing.accuracy
            content["pointing_chance"] = self.pointing.chance_level
        return content

    def describe(self) -> str:
        """Return the scores as lines of text.

        Classes that occur neither in the masks nor in the predictions are not counted.
        """
        occur, known = np.isfinite(self.masks.ious).sum(), len(self.classes) + 1
        counted = f"{known} classes"
        if occur < known:
            counted = f"the {occur} of {known} classes that occur"
        lines = [
            f"masks: mean IoU {self.masks.mean_iou:.3f} over {counted}, including the background; "
            f"micro IoU {self.masks.micro_iou:.3f} without it; threshold {self.threshold:g}"
        ]
        if self.left_out:
            lines.append(f"never predicted (unknown words): {', '.join(self.left_out)}")
        if self.pointing is not None and self.pointing.count:
            lines.append(
                f"pointing: {self.pointing.accuracy:.1f} % of {self.pointing.count:,} maps peak on "
                f"their shapes (by chance {self.pointing.chance_level:.1f} %)"
            )
        return "\n".join(lines)


def score_masks(
    linker: Linker, found: SegmentedImages, threshold: float, refined: bool = True
) -> SegmentScores:
    """Segment images by label maps, and compare the results with the images' masks.

    The maps are interpolated to the size of the image, by `refinement.refine` if `refined`;
    `regions.segment` assigns the pixels. Raises InputError if the name of every class contains an
    unknown word, and for unusable masks.
    """
    known = [not linker.texts.unknown_words(name) for name in found.classes]
    names = [name for name, is_known in zip(found.classes, known, strict=True) if is_known]
    if not names:
        more = ", ..." if len(found.classes) > 5 else ""
        raise InputError(
            f"all class names ({', '.join(found.classes[:5])}{more}) contain unknown words; choose "
            "other masks, or list names in classes.txt that use words of the captions"
        )
    numbers = np.array([0, *(i + 1 for i, is_known in enumerate(known) if is_known)])
    count = len(found.classes) + 1
    total = Segmentation(np.zeros((count, count), np.int64))
    for first in range(0, len(found.images), AT_ONCE):
        images = [load_image(path) for path in found.images[first : first + AT_ONCE]]
        maps = linker.label_maps(images, names)
        for i, (image, own) in enumerate(zip(images, maps, strict=True)):
            true = found.read_mask(first + i, image.size)
            given = numbers[segment(_to_pixels(linker, own, image, refined), threshold)]
            total += segmentation(given, true, count)
    unknown = tuple(set(found.classes) - set(names))
    left_out = tuple(name for name in found.classes if name in unknown)
    return SegmentScores(found.classes, total, threshold, left_out)


def score_demo(
    linker: Linker, data: CaptionData, split: str, threshold: float, refined: bool = True
) -> SegmentScores | None:
    """Score the maps of the names of shapes on a split of the demo.

    The map of a kind is the maximum of the maps of its singular and its plural; refined: as in
    `score_masks`. Pointing accuracy is measured for the names that occur in an image's captions; an
    image whose captions name no shape counts for the masks only. Returns None for any other data
    set, and if the model does not know all names. Raises InputError for another version of the
    demo.
    """
    shapes = demo.read_shapes(data.root, split)
    words = [*KINDS, *PLURALS.values()]
    if not shapes or any(linker.texts.unknown_words(word) for word in words):
        return None
    examples = data.split(split)
    masks = dict(draw_masks(Path(str(data.root)), split))
    total = Segmentation(np.zeros((len(KINDS) + 1,) * 2, np.int64))
    pointed = Pointing()
    encoder = linker.model.encoder
    assert encoder is not None
    for first in range(0, len(examples), AT_ONCE):
        block = examples[first : first + AT_ONCE]
        images = [load_image(example.path) for example in block]
        for example, image, maps in zip(
            block, images, linker.label_maps(images, words), strict=True
        ):
            kinds = np.maximum(maps[: len(KINDS)], maps[len(KINDS) :])
            given = segment(_to_pixels(linker, kinds, image, refined), threshold)
            total += segmentation(given, masks[example.path.name], len(KINDS) + 1)
            for word, own in zip(words, maps, strict=True):
                if _uses(example.captions, word):
                    pointed += pointing(
                        [word], own[None], shapes[example.id], offset=encoder.offset
                    )
    return SegmentScores(KINDS, total, threshold, pointing=pointed)


def _uses(captions: Sequence[str], word: str) -> bool:
    return any(word in split_words(caption) for caption in captions)


def _to_pixels(linker: Linker, maps: np.ndarray, image: Image.Image, refined: bool) -> np.ndarray:
    """Interpolate maps (L, h, w) to the pixels of an image, (L, H, W)."""
    encoder = linker.model.encoder
    assert encoder is not None
    if refined:
        return refine(maps, image, encoder.offset)
    return upsample(maps, (image.height, image.width), encoder.offset)
