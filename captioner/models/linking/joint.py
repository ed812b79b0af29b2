"""Joint embedding of images and sentences: a linear image side and a GRU over words.

Shapes: B images, N texts, T words, X image dimensions, W word dimensions, Y dimensions of the
optional sentence vectors, H hidden size, E embedding dimensions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..losses import Loss
from .contrastive import RELATIVE, hardest_hinges, info_nce, relative_loss, sum_of_hinges
from .linear import image_vectors
from .options import JointOptions
from .texts import Texts

MAX_SCALE = 100.0  # of cosines in InfoNCE, as in CLIP: a temperature of at least 0.01


@dataclass(frozen=True)
class JointBatch:
    """A batch of images and their texts.

    images: pixels (B, 3, S, S) if `are_features` is false, otherwise features as in
    `JointEmbedding.encode_images`. texts: N texts. image_of_text (N,): index of each text's image.
    ids: one id per image, for error messages. warm: whether the warm-up epochs are over, after
    which the loss "hardest" uses only the hardest negatives.
    """

    images: Tensor
    are_features: bool
    texts: Texts
    image_of_text: Tensor
    ids: tuple[int | str, ...] = ()
    warm: bool = True

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
        )


class JointEmbedding(nn.Module):
    """Embeds images with a linear layer, and sentences with a GRU's state after the last word.

    The model follows Frome et al. 2013 and Kiros et al. 2014; its losses are those of
    `contrastive`. dimensions: E.
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

        image_size: X. vector_size: Y, or 0 if there are no sentence vectors.
        """
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.dimensions = options.dimensions
        self.image = nn.Linear(image_size, options.dimensions)
        self.words = nn.Embedding(vocabulary_size, options.word_size, padding_idx=PAD)
        self.gru = nn.GRU(options.word_size, options.hidden_size, batch_first=True)
        self.text = nn.Linear(options.hidden_size + vector_size, options.dimensions)
        # Frozen for the other losses, because DistributedDataParallel requires a gradient of every
        # trainable parameter.
        self.log_scale = nn.Parameter(
            torch.tensor(math.log(1 / options.temperature)),
            requires_grad=options.loss == "infonce",
        )

    def encode_images(self, features: Tensor) -> Tensor:
        """Map the features of images to embeddings (B, E) of norm 1.

        features: feature maps (B, X, h, w), pooled features (B, 2, X) or image vectors (B, X).
        """
        vectors = F.dropout(image_vectors(features), self.options.dropout, self.training)
        return F.normalize(self.image(vectors), dim=-1)

    def encode_texts(self, texts: Texts) -> Tensor:
        """Map N texts, which may contain no words, to embeddings (N, E) of norm 1."""
        assert texts.tokens is not None
        lengths = (texts.tokens != PAD).sum(1)  # (N,)
        words = F.dropout(self.words(texts.tokens), self.options.dropout, self.training)
        states, _ = self.gru(words)  # (N, T, H); padding comes last, so that it changes no state
        last = (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2])
        state = states.gather(1, last)[:, 0]
        parts = [state] if texts.vectors is None else [state, texts.vectors]
        joined = F.dropout(torch.cat(parts, 1), self.options.dropout, self.training)
        return F.normalize(self.text(joined), dim=-1)

    def loss(self, batch: JointBatch) -> Loss:
        """Return the mean loss over the texts; its `count` is their number."""
        features = batch.images
        if not batch.are_features:
            assert self.encoder is not None
            features = self.encoder(features)
        cosines = self.encode_images(features) @ self.encode_texts(batch.texts).T  # (B, N)
        count, options = len(batch.texts), self.options
        if options.loss == "infonce":
            scale = self.log_scale.exp().clamp_max(MAX_SCALE)
            return Loss(info_nce(cosines * scale, batch.image_of_text) / count, count)
        hardest = options.loss == "hardest" and batch.warm
        hinges = partial(
            hardest_hinges if hardest else sum_of_hinges,
            image_of_text=batch.image_of_text,
            margin=options.margin,
        )
        value = hinges(cosines)
        parts = {RELATIVE: relative_loss(hinges, cosines, value)}
        return Loss(value / count, count, parts)

    forward = loss
