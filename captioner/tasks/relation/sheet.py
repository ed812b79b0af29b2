"""The sheet of reconstructions of a split: its images and texts beside what is decoded."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...data.sources import Source
from ...data.thumbnails import load_thumbnails
from ...models.relation.articles import Articles
from ...plots.reconstructions import Pair, save_reconstructions
from ...relation import RelationClassifier
from ...text.tokenizer import join_words
from .scores import LabelledSplit

SHEET = "reconstructions.png"


def save_sheet(
    path: Path, classifier: RelationClassifier, images: Source, split: LabelledSplit, count: int
) -> None:
    """Write a PNG of up to `count` evenly spaced pairs of a split and their reconstructions.

    images: a source whose i-th item belongs to the split's i-th example.
    """
    pairs = split.pairs.tolist()
    rows = pairs[:: max(1, len(pairs) // count)][:count]
    owners = [int(split.image_of_text[row]) for row in rows]
    embedded = classifier.embed(images, split.store, split.image_of_text, rows)
    articles = split.store.take(rows)
    thumbnails, decoded = decode(classifier, torch.from_numpy(embedded), articles)
    paths = [split.examples[owner].path for owner in owners]
    originals = load_thumbnails(paths, thumbnails.shape[-1], workers=0)
    drawn = [
        Pair(_image(original), _image(thumbnail), own, text)
        for original, thumbnail, own, text in zip(
            originals, thumbnails, texts(classifier, articles), decoded, strict=True
        )
    ]
    save_reconstructions(path, drawn)


def decode(
    classifier: RelationClassifier, embeddings: Tensor, articles: Articles
) -> tuple[Tensor, list[str]]:
    """Decode article embeddings (N, A); return thumbnails (N, 3, h, h), uint8, and N texts.

    articles: N texts; the decoded texts have their numbers of sentences and words, one sentence
    per line.
    """
    model, device = classifier.model, classifier.device
    vectors = embeddings.to(device)
    with torch.inference_mode():
        on_device = articles.map(lambda tensor: tensor.to(device))
        tokens = model.text_decoder.most_likely(vectors, on_device, model.articles.words.weight)
        thumbnails = model.image_decoder.render(vectors).cpu()
    return thumbnails, texts(classifier, Articles(tokens.cpu(), articles.counts))


def texts(classifier: RelationClassifier, articles: Articles) -> list[str]:
    """Return articles as texts with one sentence per line."""
    vocabulary = classifier.reader.vocabulary
    sentences = [join_words(vocabulary.decode(row)) for row in articles.tokens.tolist()]
    lines: list[list[str]] = [[] for _ in range(len(articles))]
    for sentence, owner in zip(sentences, articles.text_of_sentence.tolist(), strict=True):
        lines[owner].append(sentence)
    return ["\n".join(each) for each in lines]


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
