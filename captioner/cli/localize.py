"""`captioner localize`: draw heatmaps that show where in an image words are."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..pretrained import SPATIAL
from . import add_linker, chosen

if TYPE_CHECKING:
    from PIL import Image

    from ..linker import Linker

EXAMPLE = """captioner localize dog.jpg dog grass sky
captioner localize dog.jpg dog 'green grass' --checkpoint RUN --output maps --npy --masks
captioner localize dog.jpg dog --checkpoint RUN --output maps --regions 3"""
NOTE = (
    "All maps share a colour scale from 0 to 1, so that the map of a word that is not in the image "
    "stays dark."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE WORD... [option...]"
    parser.add_argument("image", metavar="IMAGE", help="image file")
    parser.add_argument(
        "labels", nargs="+", metavar="WORD", help="words, quoted phrases or quoted sentences"
    )
    model = "run or checkpoint trained with --system spatial, or a saved CLIP model"
    add_linker(parser, SPATIAL, model)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("label-maps"),
        metavar="DIR",
        help="output directory [%(default)s]",
    )
    parser.add_argument(
        "--npy", action="store_true", help="also write the maps (words, h, w) as a .npy file"
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="also write a PNG mask with the number of the most likely word at each pixel, or 0 "
        "for the background",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.8,
        metavar="FLOAT",
        help="map value below which a pixel of the mask is background [%(default)s]",
    )
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the mask follow the edges of the image [%(default)s]",
    )
    parser.add_argument(
        "--regions",
        type=int,
        metavar="INT",
        help="also draw the image divided into this number of groups of similar regions",
    )
    parser.add_argument(
        "--device", metavar="STR", help="cpu, cuda, cuda:N or mps [cuda if available]"
    )


def run(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.threshold <= 1:
        raise InputError(f"--threshold must be from 0 to 1, got {arguments.threshold}")
    from ..data.images import load_image
    from ..linker import Linker
    from ..models.linking.clip import ClipEmbedding
    from ..plots.heatmaps import LABEL, save_heatmap
    from ..refinement import refine
    from ..regions import spatial

    linker = Linker.from_pretrained(chosen(arguments.checkpoint, SPATIAL), arguments.device)
    if isinstance(linker.model, ClipEmbedding):
        _localize_patches(arguments, linker)
        return
    encoder = spatial(linker.model).encoder
    words = list(dict.fromkeys(arguments.labels))
    linker.encode_texts(words)  # unknown words show before the image is read
    image = load_image(arguments.image)
    scores, maps = linker.labels(image, words)[0], linker.label_maps(image, words)[0]
    stem, output = Path(arguments.image).stem, arguments.output
    captions = [f"{word} {score:.2f}" for word, score in zip(words, scores, strict=True)]
    figure = output / f"{stem}.png"
    save_heatmap(figure, image, captions, maps, offset=encoder.offset, scale=LABEL)
    print(f"maps: {figure}")
    if arguments.npy:
        array = output / f"{stem}.npy"
        save_heatmap(array, image, words, maps, offset=encoder.offset)
        print(f"values: {array}")
    if arguments.masks:
        mask = output / f"{stem}-mask.png"
        pixels = refine if arguments.refine else _interpolate
        _write_mask(mask, pixels(maps, image, encoder.offset), arguments.threshold)
        print(f"mask: {mask}")
        for number, word in enumerate(words, start=1):
            print(f"{number}\t{word}")
    if arguments.regions is not None:
        path = output / f"{stem}-regions.png"
        _draw_regions(path, linker, image, arguments.regions)
        print(f"regions: {path}")


def _localize_patches(arguments: argparse.Namespace, linker: "Linker") -> None:
    """Draw the patch similarities of a CLIP or SigLIP model, on one scale for all words."""
    from ..data.images import load_image
    from ..plots.heatmaps import PATCH, save_heatmap

    for flag in ("masks", "regions"):
        if getattr(arguments, flag):
            raise InputError(
                f"--{flag} needs a model trained with --system spatial; omit it: "
                f"{arguments.checkpoint} gives patch similarities only"
            )
    words, image = list(dict.fromkeys(arguments.labels)), load_image(arguments.image)
    maps = linker.patch_similarities(image, words)[0]
    low, high = float(maps.min()), float(maps.max())
    figure = arguments.output / f"{Path(arguments.image).stem}.png"
    captions = [f"{word} {best:.2f}" for word, best in zip(words, maps.max((1, 2)), strict=True)]
    scaled = (maps - low) / max(high - low, 1e-6)
    title = f"patch similarities (cosines from {low:.2f} to {high:.2f}), not probabilities"
    save_heatmap(figure, image, captions, scaled, title=title, scale=PATCH)
    print(f"patch similarities: {figure}")
    if arguments.npy:
        array = figure.with_suffix(".npy")
        np.save(array, maps.astype(np.float32))
        print(f"values: {array}")


def _interpolate(maps: np.ndarray, image: "Image.Image", offset: float) -> np.ndarray:
    from ..plots.overlays import upsample

    return upsample(maps, (image.height, image.width), offset)


def _write_mask(path: Path, maps: np.ndarray, threshold: float) -> None:
    from ..data.masks import mask_image
    from ..regions import segment

    if len(maps) > 254:
        raise InputError(f"a mask can contain at most 254 words, got {len(maps)}; pass fewer")
    mask_image(segment(maps, threshold)).save(path)


def _draw_regions(path: Path, linker: "Linker", image: "Image.Image", count: int) -> None:
    from ..plots.regions import draw_regions

    encoder = linker.model.encoder
    assert encoder is not None
    draw_regions(image, linker.regions(image, count), encoder.offset).save(path)
