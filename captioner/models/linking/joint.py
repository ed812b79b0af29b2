"""Joint embedding of images and sentences: a linear image side and a GRU over words.

Shapes: B images, S image side, N texts, T words, X image dimensions, W word dimensions, Y
dimensions of the optional sentence vectors, H hidden size, E embedding dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from ...errors import InputError
from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..losses import Loss
from .contrastive import (
    RELATIVE,
    hardest_hinges,
    image_cross_entropy,
    info_nce,
    random_hinges,
    relative_loss,
    sum_of_hinges,
)
from .linear import image_vectors
from .options import JointOptions
from .texts import Texts, concatenate

MAX_SCALE = 100.0  # of cosines in InfoNCE, as in CLIP: a temperature of at least 0.01


@dataclass(frozen=True)
class Exchanged:
    """Texts with exchanged words: further negatives of the images of the original texts.

    texts: M texts. rows (M,): the index in the batch of the text whose words were exchanged.
    """

    texts: Texts
    rows: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Exchanged":
        """Return the texts with `change` applied to all tensors."""
        return Exchanged(self.texts.map(change), change(self.rows))


@dataclass(frozen=True)
class Differences:
    """Queries A - B, for images with A and without B.

    words: the texts B, of one word each. rows (M,): the index in the batch of each query's text A.
    word_of (M,): the index in `words` of its text B. own (B, M): for each image of the
    batch and each query, whether the image has A but not B.
    """

    words: Texts
    rows: Tensor
    word_of: Tensor
    own: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Differences":
        """Return the queries with `change` applied to all tensors."""
        rest = (change(tensor) for tensor in (self.rows, self.word_of, self.own))
        return Differences(self.words.map(change), *rest)


@dataclass(frozen=True)
class JointBatch:
    """A batch of images and their texts.

    images: pixels (B, 3, S, S) if `are_features` is false, otherwise features as in
    `JointEmbedding.encode_images`. texts: N texts. image_of_text (N,): index of each text's image.
    ids: one id per image, for error messages. warm: whether the warm-up epochs are over; the loss
    "hardest" then uses only the hardest negatives. wrong_texts: a negative for each text, that is,
    a text of another image; only for the loss "random-negative". own (B, N): as in
    `contrastive.info_nce`. exchanged: further negatives, or None. differences: queries that
    subtract a word, or None; only for the loss "infonce".
    """

    images: Tensor
    are_features: bool
    texts: Texts
    image_of_text: Tensor
    ids: tuple[int | str, ...] = ()
    warm: bool = True
    wrong_texts: Texts | None = None
    own: Tensor | None = None
    exchanged: Exchanged | None = None
    differences: Differences | None = None

    def to(self, device: torch.device) -> "JointBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "JointBatch":
        """Return the batch in pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "JointBatch":
        return replace(
            self,
            images=change(self.images),
            texts=self.texts.map(change),
            image_of_text=change(self.image_of_text),
            wrong_texts=self.wrong_texts and self.wrong_texts.map(change),
            own=None if self.own is None else change(self.own),
            exchanged=self.exchanged and self.exchanged.map(change),
            differences=self.differences and self.differences.map(change),
        )


class JointEmbedding(nn.Module):
    """Embeds images with a linear layer, and sentences with a GRU's state after the last word.

    The state is joined with the sentence vectors and the scaled sum of the word embeddings, if the
    model has them, and mapped by the text layer, if it has one. The model follows Frome et al. 2013
    and Kiros et al. 2014; its losses are those of `contrastive`. The score of a pair is the dot
    product of its embeddings, whose norm is 1 unless the similarity is "dot". dimensions: E.
    """

    def __init__(
        self,
        image_size: int,
        vocabulary_size: int,
        vector_size: int,
        options: JointOptions,
        encoder: Encoder | None = None,
    ) -> None:
        """Create the layers.

        image_size: number of channels of the encoder, or size of given image vectors. vector_size:
        Y, or 0 without sentence vectors. encoder: None if image vectors are given. Raises
        InputError if there are sentence vectors but no text layer.
        """
        super().__init__()
        self.options = options
        if encoder is not None:
            image_size *= options.image_grid**2
        self.encoder = encoder
        self.dimensions = options.dimensions
        self.image = nn.Linear(image_size, options.dimensions)
        self.words = nn.Embedding(vocabulary_size, options.word_size, padding_idx=PAD)
        with torch.no_grad():  # to a norm of 1: at torch's, rare words would remain loud noise
            self.words.weight.div_(math.sqrt(options.word_size))
        self.gru = nn.GRU(options.word_size, options.hidden_size, batch_first=True)
        if vector_size and not options.text_layer:
            raise InputError("sentence vectors need a text layer; pass --text-layer")
        size = options.hidden_size + vector_size + options.word_size * options.word_sum
        self.text = nn.Linear(size, options.dimensions) if options.text_layer else nn.Identity()
        # Frozen for the other losses, because DistributedDataParallel requires a gradient of every
        # trainable parameter.
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(1 / options.temperature)),
            requires_grad=options.loss == "infonce",
        )

    @property
    def features(self) -> str:
        """The kind of stored features from which images are encoded: "maps" or "pooled"."""
        return "pooled" if self.options.image_grid == 1 else "maps"

    def encode_images(self, features: Tensor) -> Tensor:
        """Map the features of images to embeddings (B, E).

        features: feature maps (B, X, h, w), pooled features (B, 2, X) or image vectors (B, X).
        Pooled features are accepted only if `image_grid` is 1.
        """
        options = self.options
        scaled, grid = options.image_scaling == "sqrt", options.image_grid
        vectors = image_vectors(features, scaled=scaled, grid=grid)
        vectors = self.image(F.dropout(vectors, options.dropout, self.training))
        return self._scaled(vectors.tanh() if options.image_activation == "tanh" else vectors)

    def encode_texts(self, texts: Texts) -> Tensor:
        """Map N texts with tokens to embeddings (N, E); texts without words are accepted."""
        assert texts.tokens is not None
        lengths = (texts.tokens != PAD).sum(1).clamp_min(1)  # (N,)
        rate = self.options.word_dropout if self.training else 0.0
        words = self.words(drop_words(texts.tokens, rate))  # (N, T, W); padding is 0
        # Without the steps of padding, which would double the time.
        inputs = words * math.sqrt(words.shape[2]) if self.options.scale_inputs else words
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        # In float32: the numbers of texts and words change from batch to batch, and oneDNN would
        # compile its bfloat16 products for every shape.
        with torch.autocast(words.device.type, enabled=False):
            _, (state,) = self.gru(packed)  # (1, N, H), after each text's last word
        parts = [state] if texts.vectors is None else [state, texts.vectors]
        if self.options.word_sum:
            parts.append(words.sum(1) / lengths[:, None].sqrt())
        joined = F.dropout(torch.cat(parts, 1), self.options.dropout, self.training)
        return self._scaled(self.text(joined))

    def _scaled(self, rows: Tensor) -> Tensor:
        """Return embeddings in float32, scaled to norm 1 if the similarity is "cosine"."""
        cosine = self.options.similarity == "cosine"
        return F.normalize(rows.float(), dim=-1) if cosine else rows.float()

    def loss(self, batch: JointBatch) -> Loss:
        """Return the mean loss over the texts; its `count` is their number.

        Exchanged texts and differences add to the loss, but not to the number.
        """
        features = batch.images
        if not batch.are_features:
            assert self.encoder is not None
            features = self.encoder(features)
        images = self.encode_images(features)
        if batch.wrong_texts is not None:
            return self._random_negative_loss(batch, images, self.encode_texts(batch.texts))
        further = [part for part in (batch.exchanged, batch.differences) if part is not None]
        parts = [batch.texts, *(p.texts if isinstance(p, Exchanged) else p.words for p in further)]
        rows = self.encode_texts(concatenate(parts) if further else batch.texts)
        texts, *others = torch.split(rows, [len(part) for part in parts])
        # In bfloat16, scores have an error of up to 0.2 in the exponent of InfoNCE.
        with torch.autocast(images.device.type, enabled=False):
            return self._loss(batch, images, texts, others)

    forward = loss

    def _random_negative_loss(self, batch: JointBatch, images: Tensor, texts: Tensor) -> Loss:
        """Return the mean hinge loss over the texts, each against a text of another image."""
        assert batch.wrong_texts is not None
        images = images[batch.image_of_text]  # (N, E)
        right = (images * texts).sum(1)
        wrong = (images * self.encode_texts(batch.wrong_texts)).sum(1)
        value = random_hinges(right, wrong, self.options.margin) / len(texts)
        return Loss(value, len(texts), {RELATIVE: value.detach() / self.options.margin})

    def _loss(self, batch: JointBatch, images: Tensor, texts: Tensor, others: list[Tensor]) -> Loss:
        """Compute the loss, a mean over the texts, from the embeddings of images and texts.

        others: embeddings of the exchanged texts, then of the words B; either is missing if the
        batch has none.
        """
        scores, count, options = images @ texts.T, len(texts), self.options
        further = None
        if batch.exchanged is not None:
            own_images = images[batch.image_of_text[batch.exchanged.rows]]
            lowest = scores.new_full((count,), torch.finfo(scores.dtype).min)
            values = (own_images * others[0]).sum(1)
            further = lowest.index_put((batch.exchanged.rows,), values)
        if options.loss == "infonce":
            scale = self.log_scale.exp().clamp_max(MAX_SCALE)
            if further is not None:
                further = (further * scale).clamp_min(torch.finfo(scores.dtype).min)
            value = info_nce(scores * scale, batch.image_of_text, batch.own, further)
            if (queries := batch.differences) is not None:
                rows = F.normalize(texts[queries.rows] - others[-1][queries.word_of], dim=1)
                owners = batch.image_of_text[queries.rows]
                wrong = image_cross_entropy(images @ rows.T * scale, owners, queries.own)
                value = value + options.subtraction_weight * wrong
            return Loss(value / count, count)
        hardest = options.loss == "hardest" and batch.warm
        hinges = partial(
            hardest_hinges if hardest else sum_of_hinges,
            image_of_text=batch.image_of_text,
            margin=options.margin,
            own=batch.own,
        )
        value = hinges(scores, further=further)
        ratio = relative_loss(hinges, scores, value if further is None else hinges(scores))
        return Loss(value / count, count, {RELATIVE: ratio})


def drop_words(tokens: Tensor, rate: float) -> Tensor:
    """Return tokens (N, T) in which random words are replaced by padding.

    rate: mean fraction of replaced words. The fraction of each text is drawn between 0 and twice
    the rate, so that texts of few words also occur, as in queries.
    """
    if rate == 0:
        return tokens
    shares = 2 * rate * torch.rand((len(tokens), 1), device=tokens.device)
    return tokens.masked_fill(torch.rand(tokens.shape, device=tokens.device) < shares, PAD)
