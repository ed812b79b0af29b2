"""Sentence vectors for a data set: encoders from `--text-vectors`, and the vectors of captions.

Shapes: N captions, Y dimensions.
"""

import importlib.util
import itertools
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch

from ...checkpoints import checkpoint
from ...checkpoints.captioning import restore
from ...data.dataset import CaptionData, fingerprint, split_name
from ...errors import InputError
from ...models.captioning.sentence_state import sentence_state
from ...models.linking.texts import TextReader, Texts
from ...text.documents import fit_doc2vec, fit_lda
from ...text.given_rows import GivenRows, open_rows, read_rows
from ...text.options import FITTED, GENSIM, WEIGHTED, TextVectorOptions
from ...text.sentence_vectors import (
    ConcatenatedEncoder,
    SentenceEncoder,
    fit_counts,
    fit_lsa,
    fit_tfidf,
    fit_word2vec,
    flatten_parts,
    read_word_vectors,
)
from ...text.trained_words import fit_fasttext, fit_ppmi_svd
from ...text.transformer import check_transformer, read_transformer
from ...text.word_vectors import is_vector_file, split_weighting
from .options import WORD2VEC

BLOCK = 4096  # captions encoded at once


def check_sentence_encoder(options: TextVectorOptions) -> None:
    """Raise InputError for a source that is unknown, missing, unsupported or needs another extra.

    This check reads no vectors or weights, so it can run before images are opened;
    `build_sentence_encoder` detects all other errors.
    """
    for source in options.text_vectors:
        path = Path(source)
        match kind := _kind(source):
            case _ if kind in GENSIM and importlib.util.find_spec("gensim") is None:
                raise InputError(
                    f"{source} needs gensim; run pip install 'captioner[link]', or choose lsa or "
                    "ppmi-svd-tf-idf"
                )
            case "word vectors" if not split_weighting(source)[0].is_file():
                file, _ = split_weighting(source)
                problem = "are not a file" if file.exists() else "do not exist"
                raise InputError(f"word vectors {file} {problem}; check the path")
            case "rows":
                open_rows(path)
            case "transformer":
                check_transformer(path)
            case "captioner":
                checkpoint.find(path)


def check_word_vectors(source: str, names: Sequence[str]) -> None:
    """Raise InputError unless `source` is one of the names or an existing file of word vectors.

    Also raises InputError if the extra that a source needs is not installed.
    """
    if source not in names and not is_vector_file(Path(source)):
        raise InputError(
            f"word_vectors must be {', '.join(names)}, or a .txt, .vec or .bin file, got {source!r}"
        )
    if source == WORD2VEC and importlib.util.find_spec("gensim") is None:
        raise InputError(
            "word2vec needs gensim; run pip install 'captioner[link]', or pass a file of word "
            "vectors"
        )
    if source not in names and not (path := Path(source)).is_file():
        problem = "are not a file" if path.exists() else "do not exist"
        raise InputError(f"word vectors {source} {problem}; check the path")


def build_sentence_encoder(options: TextVectorOptions, data: CaptionData) -> SentenceEncoder:
    """Build one encoder from all sources; words and statistics come from the train split only.

    Raises InputError in the same cases as `check_sentence_encoder`, and if a file is damaged or
    does not match the captions.
    """
    captions = [caption for example in data.split("train") for caption in example.captions]
    count = sum(len(example.captions) for example in data.examples)
    return fit_sentence_encoder(options, captions, count, fingerprint(data))


def fit_sentence_encoder(
    options: TextVectorOptions, captions: Sequence[str], count: int, fingerprint: str
) -> SentenceEncoder:
    """Build one encoder from all sources; words and statistics come from `captions`.

    count: number of rows that a .npy file must have. fingerprint: as in GivenRows. Raises
    InputError in the same cases as `build_sentence_encoder`.
    """
    parts = tuple(
        _build(source, options, captions, count, fingerprint) for source in options.text_vectors
    )
    return parts[0] if len(parts) == 1 else ConcatenatedEncoder(parts)


def caption_vectors(
    encoder: SentenceEncoder, data: CaptionData, split: str
) -> Iterator[np.ndarray]:
    """Yield the vectors of a split's captions in order, in blocks (up to BLOCK, Y), float32.

    Unlike `SentenceEncoder.encode`, this also works for vectors that the user computed. The blocks
    limit the memory that word counts need, whose Y is the size of the vocabulary. Raises InputError
    if the user's vectors belong to another data set.
    """
    for part in flatten_parts(encoder):
        if isinstance(part, GivenRows):
            part.check_data(fingerprint(data), data.root)
    split = split_name(split)
    chosen = [(i, text) for i, (name, text) in enumerate(_all_captions(data)) if name == split]
    for first in range(0, len(chosen), BLOCK):
        positions, captions = zip(*chosen[first : first + BLOCK], strict=True)
        yield encode_rows(encoder, positions, captions)


def caption_texts(reader: TextReader, data: CaptionData, split: str) -> Iterator[Texts]:
    """Yield a split's captions in order, prepared for a model, in blocks of up to BLOCK.

    Raises InputError in the same cases as `caption_vectors`.
    """
    vectors: Iterator[np.ndarray | None] = itertools.repeat(None)
    if reader.sentences is not None:
        vectors = caption_vectors(reader.sentences, data, split)
    captions = [text for name, text in _all_captions(data) if name == split_name(split)]
    blocks = [captions[first : first + BLOCK] for first in range(0, len(captions), BLOCK)]
    for block, rows in zip(blocks, vectors, strict=False):  # repeat(None) is endless
        yield Texts(reader.read_tokens(block), None if rows is None else torch.from_numpy(rows))


def encode_rows(
    encoder: SentenceEncoder, positions: Sequence[int], captions: Sequence[str]
) -> np.ndarray:
    """Return the vectors (n, Y), float32, of n captions.

    positions: the captions' rows in vectors that the user computed.
    """
    parts = [
        part.take(positions) if isinstance(part, GivenRows) else part.encode(captions)
        for part in flatten_parts(encoder)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _all_captions(data: CaptionData) -> Iterator[tuple[str, str]]:
    """Yield the split and the text of each caption in reading order."""
    for example in data.examples:
        for caption in example.captions:
            yield example.split, caption


def _kind(source: str) -> str:
    """Return the kind of a source: one of FITTED, or the kind of file or directory at its path.

    Raises InputError if it is neither.
    """
    path = Path(source)
    if source in FITTED:
        return source
    if is_vector_file(split_weighting(source)[0]):
        return "word vectors"
    if path.suffix == ".npy":
        return "rows"
    if path.is_dir():
        return "transformer" if (path / "tokenizer.json").exists() else "captioner"
    if os.sep in source or path.exists():
        problem = "are not of a known kind" if path.exists() else "do not exist"
        raise InputError(
            f"sentence vectors {path} {problem}; choose a .txt, .vec or .bin file of word vectors, "
            "a .npy file, or the directory of a sentence encoder or captioner"
        )
    close = get_close_matches(source, FITTED, 1)
    advice = f"did you mean {close[0]!r}?" if close else f"choose {', '.join(FITTED)} or a path"
    raise InputError(f"unknown sentence vectors {source!r}; {advice}")


def _build(
    source: str, options: TextVectorOptions, captions: Sequence[str], count: int, fingerprint: str
) -> SentenceEncoder:
    path, weighted = Path(source), source.endswith(WEIGHTED)
    match _kind(source):
        case kind if kind in FITTED:
            return _fit(kind.removesuffix(WEIGHTED), options, captions, weighted=weighted)
        case "word vectors":
            file, weighted = split_weighting(source)
            return read_word_vectors(file, captions, options.text_min_count, weighted=weighted)
        case "rows":
            return read_rows(path, count, fingerprint)
        case "transformer":
            return read_transformer(path)
        case _:
            loaded = checkpoint.load(path)
            model, _ = restore(loaded)
            return sentence_state(model, loaded.vocabulary)


def _fit(
    name: str, options: TextVectorOptions, captions: Sequence[str], *, weighted: bool
) -> SentenceEncoder:
    """Fit the encoder `name` on the captions; if `weighted`, weight its words by tf-idf."""
    minimum, dimensions = options.text_min_count, options.text_dimensions
    match name:
        case "counts":
            return fit_counts(captions, minimum)
        case "lsa":
            return fit_lsa(captions, minimum, dimensions)
        case "word2vec":
            return fit_word2vec(captions, minimum, dimensions, weighted=weighted)
        case "fasttext":
            return fit_fasttext(captions, minimum, dimensions, weighted=weighted)
        case "ppmi-svd":
            return fit_ppmi_svd(captions, minimum, dimensions, weighted=weighted)
        case "doc2vec":
            return fit_doc2vec(captions, minimum, dimensions)
        case "lda":
            return fit_lda(captions, minimum, dimensions)
        case _:
            return fit_tfidf(captions, minimum)
