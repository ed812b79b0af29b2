"""`captioner caption`: print or write captions of images, and draw heatmaps."""

import argparse

from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..inference.batch_caption import CaptionOptions, caption_images
from ..options import add_options, from_arguments

EXAMPLE = """captioner caption dog.jpg --checkpoint RUN --checkpoint OTHER --heatmap maps
captioner caption photos 'more/**/*.jpg' --output captions.jsonl --shard 2/8"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE... [option...]"
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="file, directory, quoted glob, or - (paths on stdin)",
    )
    add_options(parser, CaptionOptions, "captioning")
    add_options(parser, DecodingOptions, "decoding")
    add_options(parser, RuntimeOptions, "runtime")


def run(arguments: argparse.Namespace) -> None:
    caption_images(
        arguments.images,
        from_arguments(CaptionOptions, arguments),
        from_arguments(DecodingOptions, arguments),
        from_arguments(RuntimeOptions, arguments),
    )
