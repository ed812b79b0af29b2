"""`captioner relate`: print how an image and a text relate."""

import argparse
import json
import sys
from pathlib import Path

from ..errors import InputError
from ..models.relation.options import SUPPORTED

EXAMPLE = """captioner relate dog.jpg "A black dog runs on the beach." --checkpoint RUN
cat article.txt | captioner relate dog.jpg - --checkpoint RUN --json
captioner relate dog.jpg "A black dog and a ball." --checkpoint RUN --spatial SPATIAL_RUN"""
NOTE = (
    "For each label, the most likely value, the expected value and the probability of every value "
    "are printed. cmi is how much the image and the text share, from 0 to 1; sc is whether the "
    "text contradicts (-1), ignores (0) or supports (1) the image."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} IMAGE TEXT --checkpoint RUN [option...]"
    parser.add_argument("image", metavar="IMAGE", help="image file")
    parser.add_argument("text", metavar="TEXT", help="one or more sentences, or - for stdin")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="RUN",
        help="run or checkpoint trained with --system relation",
    )
    parser.add_argument(
        "--spatial",
        type=Path,
        metavar="RUN",
        help="run trained with --system spatial, which marks the words that the image shows",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="FLOAT",
        help=f"minimum score of a word that is marked as supported [{SUPPORTED}]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--device", metavar="STR", help="cpu, cuda, cuda:N or mps [cuda if available]"
    )


def run(arguments: argparse.Namespace) -> None:
    threshold = SUPPORTED if arguments.threshold is None else arguments.threshold
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold must be from 0 to 1, got {threshold}")
    if arguments.threshold is not None and not arguments.spatial:
        raise InputError("--threshold has no effect without --spatial; pass --spatial or omit it")
    if arguments.threshold is not None and arguments.json:
        raise InputError("--threshold has no effect with --json; omit one of them")
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    from ..data.images import load_image
    from ..linker import Linker
    from ..relation import RelationClassifier, word_support

    classifier = RelationClassifier.from_pretrained(arguments.checkpoint, arguments.device)
    linker = arguments.spatial and Linker.from_pretrained(arguments.spatial, arguments.device)
    image = load_image(arguments.image)
    relation = classifier.relate(image, text)
    support = word_support(linker, image, text) if linker else None
    if arguments.json:
        content = {
            name: {
                "value": found.value,
                "expected": round(found.expected, 4),
                "probabilities": {f"{k:g}": round(p, 4) for k, p in found.probabilities.items()},
            }
            for name, found in relation.labels.items()
        }
        extra = {} if support is None else {"words": {w: round(s, 4) for w, s in support.items()}}
        print(json.dumps({"labels": content, **extra}, ensure_ascii=False))
        return
    for name, found in relation.labels.items():
        shares = "  ".join(f"{level:g}: {p:.2f}" for level, p in found.probabilities.items())
        expected = round(found.expected, 2) + 0.0  # not -0.00
        print(f"{name} {found.value:g} (expected {expected:.2f})  {shares}")
    if relation.unknown_words:
        print(f"unknown words: {', '.join(relation.unknown_words)}")
    for word, score in (support or {}).items():
        mark = "supported" if score >= threshold else "not supported"
        print(f"{word}\t{score:.2f}\t{mark}")
