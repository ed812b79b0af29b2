"""`captioner project`: draw sentences as points, with similar sentences close together."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.caption_files import read_sentences
from ..errors import InputError
from ..plots.projections import MAX_GROUPS, draw_projection
from ..retrieval.projections import METHODS, choose_perplexity, cluster, project
from ..text.given_rows import GivenRows
from ..text.options import FITTED, TextVectorOptions
from ..text.sentence_vectors import flatten_parts
from ..text.topics import characteristic_words
from ..text.unknown_words import describe_unknown_words

EXAMPLE = """captioner project --texts captions.txt
captioner project --texts captions.csv --column split --output splits.png
captioner project --texts captions.jsonl --text-vectors vectors.npy
captioner project --texts captions.jsonl --checkpoint RUN"""
DIMENSIONS = 100  # of lsa and word2vec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--texts",
        type=Path,
        required=True,
        metavar="FILE",
        help="file of lines of text, or of captions in CSV, TSV, JSONL or COCO JSON",
    )
    vectors = parser.add_mutually_exclusive_group()
    vectors.add_argument(
        "--text-vectors",
        nargs="+",
        default=["lsa"],
        metavar="SPEC",
        help=f"sentence vectors: {', '.join(FITTED)}, or a file or directory, as in training [lsa]",
    )
    vectors.add_argument(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="run or checkpoint that embeds the sentences",
    )
    parser.add_argument(
        "--column",
        metavar="NAME",
        help="column whose values colour the sentences [topics]",
    )
    parser.add_argument(
        "--topics", type=int, default=8, metavar="INT", help="number of topics [%(default)s]"
    )
    parser.add_argument(
        "--method", choices=METHODS, default="tsne", help="kind of projection [%(default)s]"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=2000,
        metavar="INT",
        help="maximum number of sentences; larger files are sampled at random [%(default)s]",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="INT", help="random seed [%(default)s]"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("projection.png"),
        metavar="FILE",
        help="output .png file [%(default)s]",
    )


def run(arguments: argparse.Namespace) -> None:
    _check(arguments)
    options = TextVectorOptions(
        text_vectors=tuple(arguments.text_vectors), text_min_count=1, text_dimensions=DIMENSIONS
    )
    pairs = read_sentences(arguments.texts, arguments.column)
    sentences = [sentence for sentence, _ in pairs]
    chosen = _sample(len(pairs), arguments.limit, arguments.seed)
    vectors = _vectors(arguments.checkpoint or options, sentences, chosen)
    drawn = [sentences[i] for i in chosen]
    points = project(vectors, arguments.method, arguments.seed)
    if arguments.column:
        groups, labels = _groups_of_values([pairs[i][1] for i in chosen])
    else:
        groups = cluster(vectors, arguments.topics, arguments.seed)
        labels = [
            ", ".join(words) or "(no common word)" for words in characteristic_words(drawn, groups)
        ]
    title = _title(arguments, len(drawn), len(pairs))
    draw_projection(arguments.output, points, groups, labels, title)
    for size, label in zip(np.bincount(groups[groups >= 0]), labels, strict=True):
        print(f"{size:6,}  {label}")
    print(f"{title}\nprojection: {arguments.output}")


def _check(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.topics <= MAX_GROUPS:
        raise InputError(f"--topics must be between 1 and {MAX_GROUPS}, got {arguments.topics}")
    if arguments.limit < 1:
        raise InputError(f"--limit must be at least 1, got {arguments.limit}")
    if not 0 <= arguments.seed < 2**32:
        raise InputError(f"--seed must be between 0 and 4294967295, got {arguments.seed}")
    output = arguments.output
    if output.suffix.lower() != ".png" or output.is_dir():
        raise InputError(f"--output must be a .png file, got {output}")


def _title(arguments: argparse.Namespace, drawn: int, count: int) -> str:
    of_all = f" of {count:,}" if drawn < count else ""
    method = "PCA"
    if arguments.method == "tsne":
        method = f"t-SNE, perplexity {choose_perplexity(drawn):.3g}"
    sources = [arguments.checkpoint] if arguments.checkpoint else arguments.text_vectors
    names = " + ".join(Path(source).name for source in sources)
    return f"{arguments.texts.name}: {drawn:,}{of_all} sentences ({names}; {method})"


def _sample(count: int, limit: int, seed: int) -> np.ndarray:
    """Return the sorted indices of a random sample of at most `limit` of `count` sentences."""
    chosen = np.random.default_rng(seed).permutation(count)[:limit]
    return np.asarray(np.sort(chosen))


def _vectors(
    source: Path | TextVectorOptions, sentences: Sequence[str], chosen: np.ndarray
) -> np.ndarray:
    """Return the vectors (N, Y) of the chosen sentences, and print a note on unknown words.

    source: a linking run or checkpoint, or options of an encoder fitted on the chosen sentences.
    """
    from ..linker import Linker
    from ..tasks.linking.text_vectors import encode_rows, fit_sentence_encoder

    drawn = [sentences[i] for i in chosen]
    if isinstance(source, Path):
        linker = Linker.from_pretrained(source)
        vectors, _ = linker.encode_texts(drawn, on_unknown="return")
        note = describe_unknown_words(linker.texts.unknown_words, drawn)
    else:
        encoder = fit_sentence_encoder(source, drawn, len(sentences), fingerprint="")
        vectors = encode_rows(encoder, chosen.tolist(), drawn)
        has_rows = any(isinstance(part, GivenRows) for part in flatten_parts(encoder))
        note = "" if has_rows else describe_unknown_words(encoder.unknown_words, drawn)
    if note:
        print(note, file=sys.stderr)
    return vectors


def _groups_of_values(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the group of each value (N,), and the names of the groups.

    There is one group for each of the most frequent values; other values have the group -1.
    """
    frequent = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:MAX_GROUPS]
    index = {value: group for group, (value, _) in enumerate(frequent)}
    return np.array([index.get(value, -1) for value in values]), list(index)
