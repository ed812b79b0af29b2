"""`captioner caption`: print or write captions of images, and draw heatmaps."""

import argparse
import glob
from pathlib import Path

from ..checkpoints import checkpoint
from ..data.discovery import is_image_name
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..inference.batch_caption import CaptionOptions, caption_images
from ..options import add_options, from_arguments
from ..pretrained import CAPTIONER
from . import chosen

EXAMPLE = """captioner caption dog.jpg --heatmap maps
captioner caption photos 'more/**/*.jpg' --checkpoint RUN OTHER --output captions.jsonl --shard 2/8
captioner caption photos --output captions.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE... [option...]"
    parser.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="file, directory, quoted glob, URL or - (stdin)",
    )
    add_options(parser, CaptionOptions, "captioning")
    for action in parser._actions:
        if action.dest == "checkpoint":
            action.nargs = "+"  # add_options avoids it, because images may follow; see below
    parser.set_defaults(wrong_usage=parser.error)
    add_options(parser, DecodingOptions, "decoding")
    add_options(parser, RuntimeOptions, "runtime")


def run(arguments: argparse.Namespace) -> None:
    first, *others = getattr(arguments, "checkpoint", None) or [None]
    images = [*arguments.images, *(str(path) for path in others if _is_image(path))]
    if not images:
        arguments.wrong_usage("pass at least one IMAGE")
    models = [path for path in others if not _is_image(path)]
    arguments.checkpoint = [chosen(first, CAPTIONER), *models]
    caption_images(
        images,
        from_arguments(CaptionOptions, arguments),
        from_arguments(DecodingOptions, arguments),
        from_arguments(RuntimeOptions, arguments),
    )


def _is_image(path: Path) -> bool:
    """Return whether a value after the first one of --checkpoint names images.

    So `--checkpoint RUN photo.jpg` and `photo.jpg --checkpoint RUN OTHER` both work.
    """
    text = str(path)
    if text == "-" or text.startswith(("http:/", "https:/")):
        return not text.startswith(("https:/huggingface.co", "https:/hf.co"))
    if path.is_dir():
        try:
            checkpoint.find(path)
        except InputError:
            return True
        return False
    return path.exists() or glob.has_magic(text) or is_image_name(text)
