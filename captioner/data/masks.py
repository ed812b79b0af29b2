"""Masks of segmented images in the layout of Pascal VOC.

    DIR/JPEGImages/NAME.jpg                the images, in any format
    DIR/SegmentationClass/NAME.png         one mask per image: the class of each pixel
    DIR/ImageSets/Segmentation/SPLIT.txt   names of a split's images [all that have a mask]
    DIR/classes.txt                        names of classes 1, 2, ..., one per line [VOC's classes]

Brackets contain what is used if a file does not exist. In a mask, 0 is background, and 255 is a
pixel that is not scored, such as the border of an object.
Shapes: (H, W) pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa"),
    *("train", "tv monitor"),
)
IMAGES, MASKS, LISTS, CLASSES = (
    *("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "classes.txt"),
)


@dataclass(frozen=True)
class SegmentedImages:
    """Images and their masks, in the same order. classes: the names of classes 1, 2, ..."""

    classes: tuple[str, ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def read_mask(self, index: int, size: tuple[int, int]) -> np.ndarray:
        """Return the mask (H, W), uint8, of the image at `index`.

        size: (width, height) of the image. Raises InputError if the mask cannot be read, does not
        contain class numbers, differs in size from the image, or contains a class without a name.
        """
        path = self.masks[index]
        try:
            with Image.open(path) as file:
                if file.mode not in ("P", "L"):
                    raise InputError(
                        f"mask {path} must contain class numbers (mode P or L), got {file.mode}; "
                        "save it as a palette or grey image"
                    )
                mask = np.array(file, np.uint8)
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"mask {path} cannot be read: {error}; replace it") from error
        if mask.shape != size[::-1]:
            raise InputError(
                f"mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, but its image has "
                f"{size[0]} x {size[1]}; masks must have the same size as their images"
            )
        highest = int(mask[mask < 255].max(initial=0))
        if highest > len(self.classes):
            raise InputError(
                f"mask {path} contains class {highest}, but only {len(self.classes)} classes have "
                f"names; list all class names in {CLASSES}"
            )
        return mask


def open_masks(directory: Path, split: str) -> SegmentedImages:
    """Find the images and masks of a split.

    split: name of a list of images; if `directory` has no such list, all images with masks are
    used. Raises InputError if there are no masks, or if an image or a mask is missing. Masks are
    not opened here.
    """
    folder = directory / MASKS
    if not folder.is_dir():
        raise InputError(f"{directory} has no directory {MASKS}; pass one in Pascal VOC's layout")
    listed = directory / LISTS / f"{split}.txt"
    if listed.is_file():
        names = listed.read_text(encoding="utf-8").split()
    else:
        names = sorted(path.stem for path in folder.glob("*.png"))
    by_name = {path.stem: path for path in sorted((directory / IMAGES).glob("*"))}
    masks = [folder / f"{name}.png" for name in names]
    missing = [f"{MASKS}/{mask.name}" for mask in masks if not mask.is_file()]
    missing += [f"the image {name} in {IMAGES}" for name in names if name not in by_name]
    if missing or not names:
        problem = f"{MASKS} contains no .png files; add masks"
        if missing:
            problem = f"{missing[0]} is missing; add it"
        elif listed.is_file():
            problem = f"{LISTS}/{split}.txt lists no images; add some, or choose another split"
        raise InputError(f"{directory} cannot be used for segmentation: {problem}")
    images = tuple(by_name[name] for name in names)
    return SegmentedImages(_read_classes(directory / CLASSES), images, tuple(masks))


def _read_classes(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return VOC_CLASSES
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return tuple(name for name in names if name)


def mask_image(mask: np.ndarray) -> Image.Image:
    """Return a mask (H, W) of class numbers as a palette image in VOC's colours."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([value for color in voc_colors() for value in color])
    return image


def voc_colors() -> list[tuple[int, int, int]]:
    """Return VOC's 256 colours, which spread the bits of a class number over the RGB channels."""
    colors = []
    for number in range(256):
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= (number >> bit & 1) << (7 - bit // 3)
        colors.append((channels[0], channels[1], channels[2]))
    return colors
