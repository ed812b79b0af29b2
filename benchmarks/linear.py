"""Retrieval by a linear map between frozen image and sentence vectors: python -m benchmarks.linear.

Fits the map on the train split in closed form, one row per kind of sentence vector, and ranks all
images and captions of another split. Image vectors are the mean over the feature map, read from
the feature store, with square roots of the channels and unit length.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure
from captioner.checkpoints.runs import CHECKPOINTS
from captioner.data.dataset import Example
from captioner.data.images import Transform
from captioner.data.readers import load_data
from captioner.data.sources import ImageSource
from captioner.metrics.retrieval import RetrievalScores, retrieval_scores
from captioner.models.linking.linear import LinearMap, image_vectors
from captioner.models.linking.options import LinearOptions
from captioner.text.sentence_vectors import (
    ConcatenatedEncoder,
    SentenceEncoder,
    fit_lsa,
    fit_tfidf,
    fit_word2vec,
)
from captioner.text.transformer import read_transformer
from captioner.vision.encoders import build_encoder
from captioner.vision.feature_store import FeatureStore, Runtime

FITTED: dict[str, Callable[[Sequence[str]], SentenceEncoder]] = {
    "tf-idf": lambda captions: fit_tfidf(captions, min_count=5),
    "LSA": lambda captions: fit_lsa(captions, min_count=2, dimensions=300),
    "word2vec": lambda captions: fit_word2vec(captions, min_count=2, dimensions=300, weighted=True),
}


def flatten(examples: Sequence[Example]) -> tuple[list[str], np.ndarray]:
    """All captions in order, and the row of each caption's image."""
    counts = [len(example.captions) for example in examples]
    captions = [caption for example in examples for caption in example.captions]
    return captions, np.repeat(np.arange(len(examples)), counts)


def rank(
    encoder: SentenceEncoder,
    options: LinearOptions,
    train: tuple[Tensor, Sequence[Example]],
    other: tuple[Tensor, Sequence[Example]],
    split: str,
) -> RetrievalScores:
    """Fit the map on the images and captions of `train` and rank those of `other`."""
    (images, examples), (ranked_images, ranked) = train, other
    captions, image_of_caption = flatten(examples)
    texts = torch.from_numpy(encoder.encode(captions)).float()
    model = LinearMap(images.shape[1], texts.shape[1], options)
    model.fit(images, texts, torch.from_numpy(image_of_caption))
    captions, image_of_caption = flatten(ranked)
    with torch.inference_mode():
        rows = torch.from_numpy(encoder.encode(captions)).float()
        scores = model.encode_images(ranked_images) @ model.encode_texts(rows).T
    return retrieval_scores(scores.numpy(), image_of_caption, split)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val", help="the split to rank [%(default)s]")
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--encoder-weights", required=True)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cache", type=Path, default=CHECKPOINTS / ".cache")
    parser.add_argument("--texts", nargs="+", choices=FITTED, default=["tf-idf", "LSA"])
    parser.add_argument("--sentence-encoder", type=Path, help="directory, for a row beside LSA")
    parser.add_argument("--dimensions", type=int, default=LinearOptions().dimensions)
    parser.add_argument("--ridge", type=float, default=LinearOptions().ridge)
    arguments = parser.parse_args(argv)

    options = LinearOptions(dimensions=arguments.dimensions, ridge=arguments.ridge)
    data = load_data(arguments.data, None, arguments.cache)
    encoder = build_encoder(arguments.encoder, arguments.encoder_weights)
    store = FeatureStore(arguments.cache, encoder, Transform(arguments.image_size))

    def load(split: str) -> tuple[Tensor, list[Example]]:
        examples = data.split(split)
        files = ImageSource([example.path for example in examples], store.transform)
        rows = store.open_files(files, Runtime(torch.device("cpu"), workers=1), "pooled")
        return image_vectors(rows.load(range(len(examples)))), examples

    train, other = load("train"), load(arguments.split)
    captions, _ = flatten(train[1])
    makers: dict[str, Callable[[], SentenceEncoder]] = {
        name: partial(FITTED[name], captions) for name in arguments.texts
    }
    if arguments.sentence_encoder is not None:
        makers["sentence encoder and LSA"] = lambda: ConcatenatedEncoder(
            (read_transformer(arguments.sentence_encoder), FITTED["LSA"](captions))
        )
    rows: list[list[object]] = []
    for name, make in makers.items():
        started = time.perf_counter()
        ranked = rank(make(), options, train, other, arguments.split)
        numbers = [f"{value:.1f}" for value in ranked.numbers.values()]
        rows.append([name, *numbers, f"{time.perf_counter() - started:.0f}"])
    print(measure.table(["sentence vectors", *ranked.numbers, "seconds"], rows))
    print(f"\n{ranked.protocol}. Dimensions {options.dimensions}, ridge {options.ridge}.")


if __name__ == "__main__":
    main()
