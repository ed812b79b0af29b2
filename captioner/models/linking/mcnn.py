"""Multimodal CNN (m-CNN): convolutions over words, one layer of which also reads the image.

Ma et al. 2015 (Multimodal convolutional neural networks for matching image and sentence). The score
of a pair is the output of a network that reads both, so there are no embeddings. Shapes: B images,
X image channels, N texts, P pairs, K negatives of a text, T words, U positions of units (windows of
words, or of units of the layer below), C channels of a layer.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ...console import progress_bar
from ...errors import InputError
from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..layers import Dropout, Standardize
from ..losses import Loss
from .contrastive import RELATIVE, choose_negatives, info_nce, own_texts, shifted_hinges
from .joint import JointBatch, drop_words
from .linear import image_vectors
from .options import LEVELS, McnnOptions
from .texts import Texts

WINDOW, POOL = 3, 2  # units that a convolution reads, and that a pooling reduces to one
CHUNK = 1024  # pairs scored at once: their units fit in the cache of a core
DENSE = 0.5  # fraction of a batch's pairs above which all are scored, which needs no copies
TEXTS_AT_ONCE = 256  # texts whose units are in memory while pairs are scored


class TextParts(NamedTuple):
    """What texts contribute to the layer that merges them with images.

    sums (N, U, C): outputs of the layer before the activation, for its inputs from the text, and
    pooled. gates (N, U): False for units of padding, whose sums are minus infinity in a
    convolution, so that their outputs are zero.
    """

    sums: Tensor
    gates: Tensor


class MultimodalCNN(nn.Module):
    """Scores pairs of images and texts by three convolutions over the words and an MLP.

    A convolution reads windows of WINDOW units. After the first two, the maximum of every POOL
    units is taken, after the third that of all units. A window of padding yields zeros, so that the
    number of padding words has no effect. The level of `options` determines which layer also reads
    the image: the first, second or third convolution (word, phrase, long-phrase), or the hidden
    layer of the MLP (sentence). That layer is split, W [w; v] = W_w w + W_v v: `text_parts`
    and `image_parts` compute the halves once for each text and image, and `merge` their sum and all
    that follows for each pair.
    """

    layers: Sequence[nn.Linear]

    def __init__(
        self, image_size: int, vocabulary_size: int, options: McnnOptions, encoder: Encoder
    ) -> None:
        """Create the layers; image_size is X, the number of channels of the encoder."""
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.merging = LEVELS.index(options.level)  # the number of the layer that reads the image
        size = image_size * options.image_grid**2
        self.image = nn.Linear(size, options.image_dimensions)
        self.words = nn.Embedding(vocabulary_size, options.word_size, padding_idx=PAD)
        self.word_scale = math.sqrt(options.word_size) if options.scale_inputs else 1.0
        with torch.no_grad():
            self.words.weight.div_(self.word_scale)
        below, above = options.maps, options.maps_above
        maps = [below if number <= self.merging else above for number in range(3)]
        inputs = (*(WINDOW * units for units in (options.word_size, *maps[:-1])), maps[-1])
        outputs = (*maps, options.hidden_size)
        layers = map(nn.Linear, inputs, outputs)
        self.layers = nn.ModuleList(layers)  # type: ignore[assignment]
        self.image_layer = nn.Linear(options.image_dimensions, outputs[self.merging], bias=False)
        self.output = nn.Linear(options.hidden_size, 1)
        self.standardize = Standardize(size)
        self.drop = Dropout(options.dropout)
        for layer in (self.image, self.image_layer, *self.layers):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    @property
    def features(self) -> str:
        """The kind of stored features that images are read from: "maps" or "pooled"."""
        return "pooled" if self.options.image_grid == 1 else "maps"

    @property
    def dimensions(self) -> int:
        """Raises InputError, as `encode_images` does: an m-CNN has no embeddings."""
        return _refuse_embeddings()

    def encode_images(self, _features: Tensor) -> Tensor:
        """Raise InputError: an image has no embedding, as the score of a pair is not a product."""
        return _refuse_embeddings()

    def encode_texts(self, _texts: Texts) -> Tensor:
        """Raise InputError: a text has no embedding, as the score of a pair is not a product."""
        return _refuse_embeddings()

    def image_parts(self, features: Tensor) -> Tensor:
        """Return what images contribute to the layer that reads them, (B, C).

        features: feature maps (B, X, h, w), or pooled features (B, 2, X) if `image_grid` is 1, or
        image vectors (B, X * image_grid**2).
        """
        parts: Tensor = self.image_layer(self.read_images(features))
        return parts

    def read_images(self, features: Tensor) -> Tensor:
        """Return the image vectors (B, `image_dimensions`) that a layer reads.

        features: as in `image_parts`.
        """
        vectors = image_vectors(features, grid=self.options.image_grid)
        vectors = vectors * math.sqrt(vectors.shape[1])  # to a mean square of 1
        vectors = self.standardize(vectors[..., None, None]).flatten(1)
        read: Tensor = self.image(self.drop(vectors)).relu()
        return read

    def measure_images(self, batches: Iterable[Tensor]) -> None:
        """Set the mean and std of image vectors from batches of a pretrained encoder's features.

        Image vectors share a large component, which would contribute the same to every score.
        """
        scale, grid = math.sqrt(self.image.in_features), self.options.image_grid
        self.standardize.measure(
            scale * image_vectors(features, grid=grid)[..., None, None] for features in batches
        )

    def text_parts(self, texts: Texts) -> TextParts:
        """Return what N texts contribute to the layer that reads the images.

        Texts without words are accepted.
        """
        assert texts.tokens is not None
        tokens = drop_words(texts.tokens, self.options.word_dropout if self.training else 0.0)
        units, gates = self.words(tokens) * self.word_scale, tokens != PAD
        for number in range(self.merging):
            sums, gates = self._layer(number, units, gates)
            units = sums.relu()
        # An image adds the same to all units of a text, so that their maximum can be taken before.
        return TextParts(*self._layer(self.merging, units, gates))

    def merge(self, images: Tensor, texts: TextParts) -> Tensor:
        """Return the scores of pairs.

        images (..., N, C) or (..., 1, C): rows of `image_parts`, one for each text or one for all.
        texts: N texts, as `text_parts` returns them. The scores have the shape (..., N).
        """
        units, gates = (texts.sums + images[..., None, :]).relu(), texts.gates
        for number in range(self.merging + 1, len(self.layers)):
            sums, gates = self._layer(number, units, gates)
            units = sums.relu()
        if self.options.loss == "hinges":  # masks for all pairs of a batch would take too long
            units = self.drop(units)
        scores: Tensor = self.output(units)[..., 0, 0]
        return scores.float()

    def _layer(self, number: int, units: Tensor, gates: Tensor) -> TextParts:
        """Return the sums (..., N, U', C') of a layer over its units, pooled, and their gates.

        units (..., N, U, C): outputs of the layer below. gates (N, U): False for units of padding.
        """
        layer, units = self.layers[number], self.drop(units)
        if number == len(self.layers) - 1:
            return TextParts(layer(units), gates)
        sums, gates = convolve(layer, units, gates)
        size = POOL if number < len(self.layers) - 2 else gates.shape[-1]
        return TextParts(pool(sums, size, -torch.inf), pool(gates[..., None], size, False)[..., 0])

    def loss(self, batch: JointBatch) -> Loss:
        """Return the mean loss of the texts; its `count` is their number.

        An image's own captions, and captions that `own` of the batch marks as equal to one of them,
        are not negatives.
        """
        features, owners = batch.images, batch.image_of_text
        if not batch.are_features:
            features = self.encoder(features)
        images, texts = self.image_parts(features), self.text_parts(batch.texts)
        own = own_texts(owners, len(images)) if batch.own is None else batch.own
        hinges = self.options.loss == "hinges"
        return (self._hinges if hinges else self._info_nce)(images, texts, owners, own)

    def _info_nce(self, images: Tensor, texts: TextParts, owners: Tensor, own: Tensor) -> Loss:
        """Return the InfoNCE loss.

        The negatives of a text are up to `negatives` random images of the batch; those of an image
        are the texts that have it as a negative. images (B, C), texts: the parts of B images and N
        texts. owners (N,): index of each text's image. own (B, N): mask of own texts.
        """
        negative, count = choose_negatives(own, self.options.most_negatives), len(owners)
        scores = self._score_batch(images, texts, negative, owners)
        return Loss(info_nce(scores / self.options.temperature, owners, ~negative) / count, count)

    def _hinges(self, images: Tensor, texts: TextParts, owners: Tensor, own: Tensor) -> Loss:
        """Return the mean hinge loss of pairs and negatives; parameters as in `_info_nce`.

        The images of the texts, in their order, are shifted by up to `negatives` different random
        distances: text n with the image of text m is a negative for both.
        """
        count = len(owners)
        shifts = torch.randperm(count - 1)[: self.options.most_negatives] + 1
        shifts = torch.cat([shifts.new_zeros(1), shifts]).to(images.device)
        right = torch.arange(count, device=images.device)
        others = (right + shifts[:, None]) % count  # (1 + K, N): the m of each n
        rows = owners[others]
        # (1 + K, N); the first row is of the right pairs
        scores = self.merge(take(images, rows), texts)
        value = shifted_hinges(scores, others[1:], own[rows, right][1:], self.options.margin)
        return Loss(value, count, {RELATIVE: value.detach() / self.options.margin})

    forward = loss

    def _score_batch(
        self, images: Tensor, texts: TextParts, negative: Tensor, owners: Tensor
    ) -> Tensor:
        """Return scores (B, N), those of negative pairs and of each text with its own image.

        negative (B, N): True for negative pairs. Other pairs have any finite score. Other
        parameters are as in `_info_nce`.
        """
        needed = negative.scatter(0, owners[None], True)
        if needed.float().mean() > DENSE:
            few = torch.split(images[:, None], max(1, CHUNK // len(owners)))
            return torch.cat([self.merge(rows, texts) for rows in few])
        pairs = needed.nonzero()
        found = [
            self.merge(take(images, image), TextParts(take(texts.sums, text), texts.gates[text]))
            for image, text in (chunk.T for chunk in torch.split(pairs, CHUNK))
        ]
        scores = images.new_zeros(needed.shape, dtype=torch.float32)
        return scores.index_put((pairs[:, 0], pairs[:, 1]), torch.cat(found))

    def score_pairs(
        self,
        images: Tensor,
        texts: Texts,
        pairs: Tensor,
        chunk: int = CHUNK,
        show_progress: bool = False,
    ) -> Tensor:
        """Return the scores (P,) of pairs, float32.

        images (B, C): as returned by `image_parts`. pairs (P, 2): the index of an image and of a
        text. chunk: maximum number of pairs to score at once. All tensors are on the model's
        device.
        """
        scores = torch.empty(len(pairs), device=images.device)
        blocks = _blocks(texts)
        places = torch.cat(blocks).argsort()[pairs[:, 1]]  # of each pair's text, in the blocks
        counts = torch.bincount(places // TEXTS_AT_ONCE, minlength=len(blocks))
        of_blocks = torch.split(places.argsort(), counts.tolist())
        with _progress(len(pairs), show_progress) as bar:
            for block, of_block in zip(blocks, of_blocks, strict=True):
                sums, gates = self.text_parts(texts.take(block))
                for rows in torch.split(of_block, chunk):
                    row = places[rows] % TEXTS_AT_ONCE
                    parts = TextParts(sums[row], gates[row])
                    scores[rows] = self.merge(images[pairs[rows, 0]], parts)
                    bar.update(len(rows))
        return scores

    def score_matrix(
        self, images: Tensor, texts: Texts, chunk: int = CHUNK, show_progress: bool = False
    ) -> Tensor:
        """Return the score (B, N) of each image with each text, float32.

        images, chunk: as in `score_pairs`.
        """
        scores = torch.empty(len(images), len(texts), device=images.device)
        with _progress(scores.numel(), show_progress) as bar:
            for block in _blocks(texts) if len(texts) else ():
                parts = self.text_parts(texts.take(block))
                rows = torch.arange(len(images), device=images.device)
                for few in torch.split(rows, max(1, chunk // len(block))):
                    scores[few[:, None], block] = self.merge(images[few, None], parts)
                    bar.update(len(few) * len(block))
        return scores


def convolve(layer: nn.Module, units: Tensor, gates: Tensor) -> TextParts:
    """Apply a layer to the window of WINDOW units that begins at each unit; return sums and gates.

    units (..., N, U, C): zero where gates (N, U) are False; the last windows are filled with zeros.
    Windows that are all padding are not computed: their sums are minus infinity, and their gates
    False.
    """
    padded, width = F.pad(units, (0, 0, 0, WINDOW - 1)).flatten(-3, -2), units.shape[-2]
    gates = F.pad(gates, (0, WINDOW - 1)).unfold(-1, WINDOW, 1).any(-1)
    text, unit = gates.nonzero(as_tuple=True)
    starts = text * (width + WINDOW - 1) + unit
    windows = torch.cat([padded[..., starts + place, :] for place in range(WINDOW)], -1)
    found = layer(windows)  # (..., windows of all texts, C')
    sums = found.new_full((*units.shape[:-1], found.shape[-1]), -torch.inf).flatten(-3, -2)
    sums[..., text * width + unit, :] = found
    return TextParts(sums.unflatten(-2, gates.shape), gates)


def take(parts: Tensor, rows: Tensor) -> Tensor:
    """Return the parts at `rows`, with gradients that are summed in float32.

    A row is taken once for each of its pairs. A sum of bfloat16 stops growing at 256 times its
    terms, and at less if large terms cancel out.
    """
    return parts.float()[rows].to(parts.dtype)


def pool(units: Tensor, size: int, padding: float) -> Tensor:
    """Return the maximum (..., ceil(U / size), C) of every `size` consecutive units (..., U, C).

    padding: the value that fills the last group if it has fewer than `size` units.
    """
    padded = F.pad(units, (0, 0, 0, -units.shape[-2] % size), value=padding)
    return torch.unflatten(padded, -2, (-1, size)).amax(-2)


def _blocks(texts: Texts) -> tuple[Tensor, ...]:
    """Return the indices of texts in blocks of TEXTS_AT_ONCE texts of similar length."""
    assert texts.tokens is not None
    lengths = (texts.tokens != PAD).sum(1)
    return torch.split(lengths.argsort(stable=True), TEXTS_AT_ONCE)


def _progress(pairs: int, shown: bool) -> "tqdm[NoReturn]":
    return progress_bar(desc="scoring", total=pairs, unit="pair", shown=shown)


def _refuse_embeddings() -> NoReturn:
    raise InputError(
        "an m-CNN scores pairs and has no embeddings; use it to re-rank the results of another "
        "linking model, with --rerank or Reranker"
    )
