"""`captioner label`: score words, phrases or sentences as labels of images."""

import argparse
import json
import sys
from pathlib import Path

from ..errors import InputError
from ..pretrained import SPATIAL
from . import add_linker, chosen

EXAMPLE = """captioner label dog.jpg
captioner label photos --checkpoint RUN --labels beach 'black dog' 'a man on a bike'
captioner label photos --checkpoint RUN --labels-file labels.txt --json"""
NOTE = (
    "Any words that the model knows can be labels, including words that were not labels in "
    "training. Without --labels or --labels-file, the labels of the training data are scored."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE... [option...]"
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="file, directory, quoted glob, or - (paths on stdin)",
    )
    add_linker(parser, SPATIAL, "run or checkpoint trained with --system spatial")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--labels", nargs="+", metavar="LABEL", help="words, quoted phrases or quoted sentences"
    )
    labels.add_argument(
        "--labels-file", type=Path, metavar="FILE", help="file of labels, one per line"
    )
    parser.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="INT",
        help="number of labels to print for each image, the most likely first [%(default)s]",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line, one for each image"
    )
    parser.add_argument(
        "--device", metavar="STR", help="cpu, cuda, cuda:N or mps [cuda if available]"
    )


def run(arguments: argparse.Namespace) -> None:
    from ..data.image_paths import find_images

    if arguments.top < 1:
        raise InputError(f"--top must be at least 1, got {arguments.top}")
    labels = read_labels(arguments.labels_file) if arguments.labels_file else arguments.labels
    images = find_images(arguments.images, sys.stdin.buffer if "-" in arguments.images else ())
    from ..linker import Linker
    from ..regions import spatial

    linker = Linker.from_pretrained(chosen(arguments.checkpoint, SPATIAL), arguments.device)
    spatial(linker.model)
    names = list(dict.fromkeys(labels or linker.known_labels.names))
    linker.encode_texts(names)  # unknown words show before images are read
    failures = 0
    for image in images:
        try:
            scores = linker.labels(image, names)[0]
        except InputError as error:
            print(error, file=sys.stderr)
            failures += 1
            continue
        best = [(names[i], float(scores[i])) for i in (-scores).argsort(kind="stable")]
        print(_format(image, best[: arguments.top], as_json=arguments.json), flush=True)
    if failures:
        raise InputError(
            f"{failures:,} of {len(images):,} images could not be read; see the errors above"
        )


def _format(image: str, best: list[tuple[str, float]], *, as_json: bool) -> str:
    if as_json:
        labels = {name: round(score, 4) for name, score in best}
        return json.dumps({"image": image, "labels": labels}, ensure_ascii=False)
    return f"{image}\t" + ", ".join(f"{name} {score:.2f}" for name, score in best)


def read_labels(path: Path) -> list[str]:
    """Return the nonempty lines of a file; raise InputError if it cannot be read or has none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text; save it as UTF-8"
        raise InputError(f"label file {path} cannot be read: {reason}") from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise InputError(f"{path} contains no labels; write one per line")
    return labels
