"""`captioner project`: plot images and sentences in two dimensions, by similarity or by labels."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from .. import console
from ..console import progress_bar
from ..data.caption_files import read_sentences
from ..errors import InputError
from ..plots.mosaics import MAX_SIDE, SUFFIXES, check_side, draw_mosaic
from ..plots.projections import MAX_GROUPS, draw_projection
from ..retrieval.projections import (
    METHODS,
    choose_perplexity,
    cluster,
    project,
    subtract_means,
)
from ..text.options import FITTED, TextVectorOptions
from ..text.topics import characteristic_words
from ..text.unknown_words import describe_unknown_words

if TYPE_CHECKING:
    from PIL import Image

    from ..index import Index
    from ..linker import Linker

EXAMPLE = """captioner project --texts captions.txt
captioner project --texts captions.csv --column split --output splits.png
captioner project photos.index --texts captions.txt --center
captioner project photos.index --mosaic 2000 --output mosaic.jpg
captioner project photos.index --labels dog snow water --clusters 5"""
NOTE = (
    "An index is drawn as one point per image or text, or with --mosaic as thumbnails. With "
    "--texts, its model also embeds the sentences, in the same space. With --labels, one or two "
    "labels are axes, and more are anchors on a circle."
)
DEFAULT_VECTORS = ("lsa",)
TOPICS = 8
DIMENSIONS = 100  # of lsa and word2vec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [INDEX] [--texts FILE] [option...]"
    parser.add_argument(
        "index", nargs="?", type=Path, metavar="INDEX", help="index of images or texts to draw"
    )
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="FILE",
        help="text file of one sentence per line, or captions in CSV, TSV, JSONL or COCO JSON",
    )
    vectors = parser.add_mutually_exclusive_group()
    vectors.add_argument(
        "--text-vectors",
        nargs="+",
        metavar="SPEC",
        help=f"sentence vectors: {', '.join(FITTED)}, or a file or directory, as in training [lsa]",
    )
    vectors.add_argument(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="run or checkpoint that embeds the sentences; with an index, the new location of its "
        "checkpoint",
    )
    parser.add_argument(
        "--column",
        metavar="NAME",
        help="column that colours the sentences [by topic]",
    )
    parser.add_argument(
        *("--topics", "--clusters"),
        type=int,
        metavar="INT",
        help=f"number of groups of similar items [{TOPICS}]",
    )
    parser.add_argument(
        "--method", choices=METHODS, default="tsne", help="kind of projection [%(default)s]"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=2000,
        metavar="INT",
        help="sample size for images and for sentences [%(default)s]",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="spatial models: words as axes or anchors",
    )
    parser.add_argument(
        "--diversity",
        action="store_true",
        help="spatial models: variance of regions as an axis",
    )
    parser.add_argument(
        "--center",
        action="store_true",
        help="with an index and --texts: subtract the mean of the index's rows from each row, and "
        "the mean of the sentences from each sentence",
    )
    parser.add_argument(
        "--mosaic",
        type=int,
        metavar="INT",
        help=f"draw thumbnails in a square with this side in pixels, e.g. 2000; at most {MAX_SIDE}",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="INT", help="random seed [%(default)s]"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("projection.png"),
        metavar="FILE",
        help="output file: .png, or for a mosaic also .jpg or .jpeg [%(default)s]",
    )


def run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    if arguments.index is None:
        _draw_sentences(arguments)
    elif arguments.labels or arguments.diversity:
        _draw_labels(arguments)
    else:
        _draw_index(arguments)


def _draw_sentences(arguments: argparse.Namespace) -> None:
    from ..tasks.linking.sentence_groups import groups_of_values, sentence_vectors

    options = TextVectorOptions(
        text_vectors=tuple(arguments.text_vectors or DEFAULT_VECTORS),
        text_min_count=1,
        text_dimensions=DIMENSIONS,
    )
    pairs = read_sentences(arguments.texts, arguments.column)
    sentences = [sentence for sentence, _ in pairs]
    chosen = _sample(len(pairs), arguments.limit, arguments.seed)
    vectors = sentence_vectors(arguments.checkpoint or options, sentences, chosen)
    drawn = [sentences[i] for i in chosen]
    points = project(vectors, arguments.method, arguments.seed)
    if arguments.column:
        groups, labels = groups_of_values([pairs[i][1] for i in chosen])
    else:
        groups = cluster(vectors, arguments.topics or TOPICS, arguments.seed)
        labels = [
            ", ".join(words) or "(no common word)" for words in characteristic_words(drawn, groups)
        ]
    sources = [arguments.checkpoint] if arguments.checkpoint else options.text_vectors
    names = " + ".join(Path(source).name for source in sources)
    what = f"{arguments.texts.name}: {_of_all(len(drawn), len(pairs))} sentences"
    title = f"{what} ({names}; {_method(arguments.method, len(drawn))})"
    draw_projection(arguments.output, points, groups, labels, title)
    _print_groups(groups, labels)
    print(f"{title}\nprojection: {arguments.output}")


def _draw_index(arguments: argparse.Namespace) -> None:
    from ..index import Index
    from ..inference.image_groups import group_images

    index = Index.open(arguments.index, arguments.checkpoint)
    chosen = _sample(len(index), arguments.limit, arguments.seed)
    what = f"{arguments.index.name}: {_of_all(len(chosen), len(index))} {index.kind}"
    if arguments.mosaic is not None:
        _draw_mosaic(arguments, index, chosen, what)
        return
    vectors = np.asarray(index.rows[chosen], np.float32)
    how = ""
    if arguments.texts is None:
        groups, labels = group_images(index, chosen, arguments.topics or TOPICS, arguments.seed)
    else:
        sentences, embedded = _embed_sentences(arguments, index.linker)
        what += f"; {arguments.texts.name}: {sentences} sentences"
        groups = np.repeat([0, 1], [len(vectors), len(embedded)])
        labels = [index.kind, "sentences"]
        vectors = np.concatenate([vectors, embedded])
        how = "means subtracted; " if arguments.center else "means kept; "
        if arguments.center:
            vectors = subtract_means(vectors, groups)
    points = project(vectors, arguments.method, arguments.seed)
    title = f"{what} ({how}{_method(arguments.method, len(vectors))})"
    draw_projection(arguments.output, points, groups, labels, title)
    _print_groups(groups, labels)
    print(f"{title}\nprojection: {arguments.output}")


def _draw_labels(arguments: argparse.Namespace) -> None:
    from ..index import Index
    from ..inference.image_groups import group_images
    from ..inference.label_projection import describe_plane, project_labels

    index = Index.open(arguments.index, arguments.checkpoint)
    chosen = _sample(len(index), arguments.limit, arguments.seed)
    plane = project_labels(
        index,
        chosen,
        arguments.labels or (),
        diversity=arguments.diversity,
        seed=arguments.seed,
    )
    what = f"{arguments.index.name}: {_of_all(len(chosen), len(index))} images"
    title = f"{what} ({describe_plane(plane)})"
    if arguments.mosaic is not None:
        check_side(len(chosen), arguments.mosaic)
        _draw_thumbnails(arguments, index.items(chosen), plane.points)
        print(f"{title}\nmosaic: {arguments.output}")
        return
    groups, names = plane.groups, list(plane.labels)
    if arguments.topics is not None:
        groups, names = group_images(index, chosen, arguments.topics, arguments.seed)
    draw_projection(arguments.output, plane.points, groups, names, title, plane.meaning)
    _print_groups(groups, names)
    print(f"{title}\nprojection: {arguments.output}")


def _embed_sentences(arguments: argparse.Namespace, linker: "Linker") -> tuple[str, np.ndarray]:
    """Return how many sentences are drawn, such as "20 of 300", and their embeddings (N, E)."""
    sentences = [sentence for sentence, _ in read_sentences(arguments.texts, None)]
    known = [sentence for sentence in sentences if linker.texts.knows(sentence)]
    if not known:
        raise InputError(
            f"no sentence of {arguments.texts} has a word that is known to the model of "
            f"{arguments.index}; pass other sentences"
        )
    drawn = [known[i] for i in _sample(len(known), arguments.limit, arguments.seed)]
    rows, _ = linker.encode_texts(drawn, on_unknown="return")
    if note := describe_unknown_words(linker.texts.unknown_words, drawn):
        console.note(note)
    return _of_all(len(drawn), len(sentences)), rows


def _draw_mosaic(
    arguments: argparse.Namespace, index: "Index", chosen: np.ndarray, what: str
) -> None:
    if index.kind != "images":
        raise InputError(f"{arguments.index} contains texts, not images; omit --mosaic")
    check_side(len(chosen), arguments.mosaic)
    vectors = np.asarray(index.rows[chosen], np.float32)
    points = project(vectors, arguments.method, arguments.seed)
    _draw_thumbnails(arguments, index.items(chosen), points)
    title = f"{what} ({_method(arguments.method, len(chosen))})"
    print(f"{title}\nmosaic: {arguments.output}")


def _draw_thumbnails(
    arguments: argparse.Namespace, images: Sequence[str], points: np.ndarray
) -> None:
    from ..data.images import load_image

    bar = progress_bar(total=len(images), unit="image")

    def load(i: int) -> "Image.Image | None":
        bar.update()
        try:
            return load_image(images[i])
        except InputError as error:
            tqdm.write(str(error), file=sys.stderr)
            return None

    with bar:
        missing = draw_mosaic(arguments.output, points, load, arguments.mosaic)
    if missing:
        console.note(
            f"{len(missing):,} of {len(images):,} images could not be read and are drawn in grey"
        )


def _print_groups(groups: np.ndarray, labels: Sequence[str]) -> None:
    sizes = np.bincount(groups[groups >= 0], minlength=len(labels))
    for size, label in zip(sizes, labels, strict=True):
        print(f"{size:6,}  {label}")


def _check(arguments: argparse.Namespace) -> None:
    if arguments.index is None and arguments.texts is None:
        raise InputError("there is nothing to draw; pass an index, or sentences with --texts")
    if arguments.topics is not None and not 1 <= arguments.topics <= MAX_GROUPS:
        raise InputError(
            f"--topics (or --clusters) must be between 1 and {MAX_GROUPS}, got {arguments.topics}"
        )
    if arguments.limit < 1:
        raise InputError(f"--limit must be at least 1, got {arguments.limit}")
    if not 0 <= arguments.seed < 2**32:
        raise InputError(f"--seed must be between 0 and 4294967295, got {arguments.seed}")
    _check_combination(arguments)
    output, is_mosaic = arguments.output, arguments.mosaic is not None
    allowed = SUFFIXES if is_mosaic else (".png",)
    if output.suffix.lower() not in allowed or output.is_dir():
        what = f"the directory {output}" if output.is_dir() else output
        kinds = ".png, .jpg or .jpeg file" if is_mosaic else ".png file (.jpg only with --mosaic)"
        raise InputError(f"--output must be a {kinds}, got {what}")


def _check_combination(arguments: argparse.Namespace) -> None:
    indexed, texts = arguments.index is not None, arguments.texts is not None
    no_texts, no_index = "an index without --texts", "--texts without an index"
    needs = {
        "--mosaic": (arguments.mosaic is not None, indexed and not texts, no_texts),
        "--center": (arguments.center, indexed and texts, "both an index and --texts"),
        "--column": (arguments.column is not None, not indexed, no_index),
        "--text-vectors": (arguments.text_vectors is not None, not indexed, no_index),
        "--labels": (arguments.labels is not None, indexed and not texts, no_texts),
        "--diversity": (arguments.diversity, indexed and not texts, no_texts),
    }
    for flag, (is_given, has_effect, needed) in needs.items():
        if is_given and not has_effect:
            raise InputError(f"{flag} needs {needed}; omit {flag}, or pass {needed}")
    grouped = {
        "--column": arguments.column is not None,
        "--mosaic": arguments.mosaic is not None,
        "an index and --texts": indexed and texts,
    }
    for other, is_given in grouped.items():
        if is_given and arguments.topics is not None:
            raise InputError(f"--topics (or --clusters) has no effect with {other}; omit it")
    needs_model = arguments.mosaic is None or arguments.labels or arguments.diversity
    if arguments.checkpoint is not None and not needs_model:
        raise InputError(
            "--checkpoint has no effect with --mosaic, which needs a model only with --labels "
            "or --diversity; omit --checkpoint"
        )


def _of_all(drawn: int, count: int) -> str:
    return f"{drawn:,} of {count:,}" if drawn < count else f"{drawn:,}"


def _method(name: str, drawn: int) -> str:
    return "PCA" if name == "pca" else f"t-SNE, perplexity {choose_perplexity(drawn):.3g}"


def _sample(count: int, limit: int, seed: int) -> np.ndarray:
    """Return a random sample of at most `limit` integers below `count`, in increasing order."""
    chosen = np.random.default_rng(seed).permutation(count)[:limit]
    return np.asarray(np.sort(chosen))
