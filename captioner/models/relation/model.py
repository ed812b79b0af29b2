"""Relation models: a multimodal autoencoder, and a classifier on its article embedding.

Henning and Ewerth 2017, "Estimating the information gap between textual and visual
representations". The autoencoder is trained on pairs of an image and a text, the classifier on
labelled texts and their images, usually starting from a trained autoencoder. Shapes: B images, S
image side or, for vectors, size of sentences, N texts, K sentences of all texts, A size of
articles, M matches and F facts of a sentence, L levels of a head, H heads, h thumbnail side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ...text.vocabulary import PAD
from ...vision.encoders import Encoder
from ..linking.contrastive import info_nce, own_texts
from ..losses import Loss
from .articles import Articles
from .decoder import ImageDecoder, TextDecoder
from .encoder import ArticleEncoder, EmbeddedImages, JoinedArticles
from .facts import Facts
from .options import RelationOptions

MISSING = -1  # index of a label that a text does not have
TEMPERATURE, MAX_SCALE = 0.07, 100.0  # of the contrastive loss: at first, and the largest inverse
HEAD_DROPOUT = 0.1
DECODERS = ("image_decoder", "text_decoder")  # parts that only an autoencoder trains
CLASSIFIER = ("facts", "hidden", "heads")  # parts that only a classifier trains


@dataclass(frozen=True)
class RelationBatch:
    """A batch of images and their texts.

    images: pixels (B, 3, S, S) if `are_features` is false, otherwise features as in
    `ArticleEncoder.embed_images`. articles: N texts. image_of_text (N,): index of each text's
    image. labels (N, H): the index of each head's level, or MISSING. thumbnails (B, 3, h, h):
    targets of the autoencoder, uint8; None trains the classifier. contradictions: C texts of one
    sentence each that contradict an image of the batch, for the alignment of the autoencoder; None
    for none. image_of_contradiction (C,): the index of that image. ids: one per image, for error
    messages.
    """

    images: Tensor
    are_features: bool
    articles: Articles
    image_of_text: Tensor
    labels: Tensor
    thumbnails: Tensor | None = None
    contradictions: Articles | None = None
    image_of_contradiction: Tensor | None = None
    ids: tuple[int | str, ...] = ()

    def to(self, device: torch.device) -> "RelationBatch":
        """Return the batch on a device; copies from pinned memory do not block."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "RelationBatch":
        """Return the batch in pinned memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "RelationBatch":
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
            elif isinstance(value, Articles):
                changed[field.name] = value.map(change)
        return replace(self, **changed)


class RelationModel(nn.Module):
    """An article encoder with the decoders of an autoencoder and the heads of a classifier."""

    def __init__(
        self,
        channels: int,
        vocabulary_size: int,
        options: RelationOptions,
        encoder: Encoder | None = None,
    ) -> None:
        """Create the layers.

        channels: number of channels of the image encoder's features. vocabulary_size: number of
        tokens V. encoder: None if all batches contain features.
        """
        super().__init__()
        self.options = options
        self.encoder = encoder
        self.articles = ArticleEncoder(channels, vocabulary_size, options)
        self.image_decoder = ImageDecoder(options)
        self.text_decoder = TextDecoder(vocabulary_size, options)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
        match_size, facts = self.articles.match_size, 0
        if match_size:
            facts = options.head_size
            self.facts = Facts(match_size, options.sentence_size, facts, HEAD_DROPOUT)
        self.hidden = nn.Linear(options.article_size + 3 * facts, options.head_size)
        self.heads = nn.ModuleList(
            nn.Linear(options.head_size, len(head.levels)) for head in options.parsed_heads
        )

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens V."""
        return self.articles.words.num_embeddings

    @property
    def features(self) -> str:
        """The kind of stored features that images are encoded from: "maps" or "pooled"."""
        return "pooled" if self.options.image_grid == 1 else "maps"

    def train_parts(self, *, autoencoder: bool, vectors: bool = True) -> None:
        """Select the parameters to train, and freeze the others.

        autoencoder: whether the decoders are trained instead of the hidden layer and the heads of
        the classifier; the unused part is frozen, because DistributedDataParallel requires a
        gradient of every trainable parameter. vectors: whether the vectors of words, sentences and
        images are trained.
        """
        for name, part in self.named_children():
            if name in CLASSIFIER or name in DECODERS:
                part.requires_grad_(autoencoder == (name in DECODERS))
        articles, aligned = self.articles, autoencoder and self.options.alignment > 0
        self.log_scale.requires_grad_(aligned)
        images = [layer for name, layer in articles.named_children() if name.startswith("image")]
        for layer in (articles.words, articles.sentence, *images):
            layer.requires_grad_(vectors)
        articles.matching.requires_grad_(vectors and (aligned or articles.match_size > 0))

    def embed_images(self, images: Tensor, *, are_features: bool) -> EmbeddedImages:
        """Embed pixels (B, 3, S, S), or features as in `ArticleEncoder.embed_images`."""
        if not are_features:
            assert self.encoder is not None
            images = self.encoder(images)
        return self.articles.embed_images(images)

    def classify(self, joined: JoinedArticles, articles: Articles) -> list[Tensor]:
        """Return the logits (N, L) of each head.

        The hidden layer reads the article embedding and the facts: F numbers for each sentence, of
        which it gets the mean, the minimum and the maximum over the text. So a text with one false
        sentence differs from a true one even if the LSTM over sentences has not learned to count.
        """
        dropped = F.dropout(joined.embeddings, self.options.dropout, self.training)
        if self.articles.match_size:
            dropped = torch.cat([dropped, *self.facts(joined.matches, articles)], -1)
        hidden = F.dropout(self.hidden(dropped).relu(), HEAD_DROPOUT, self.training)
        return [head(hidden).float() for head in self.heads]

    def loss(self, batch: RelationBatch) -> Loss:
        """Return the loss of the autoencoder if the batch has thumbnails, else of the classifier.

        That of the autoencoder is the sum of the losses of text, thumbnail and alignment, the last
        with its weight. That of the classifier is the sum over the heads of the mean over the texts
        with a label. Its `count` is the number of texts.
        """
        images = self.embed_images(batch.images, are_features=batch.are_features)
        tokens = batch.articles.tokens
        if batch.contradictions is not None:  # read together: few words have no useful batch norm
            rows = [*tokens, *batch.contradictions.tokens]
            tokens = pad_sequence(rows, batch_first=True, padding_value=PAD)
        everything = self.articles.read_sentences(tokens)
        read, false = everything.split(len(batch.articles.tokens))
        repeated = images.take(batch.image_of_text)
        joined = self.articles.join(repeated, read, batch.articles)
        if batch.thumbnails is not None:
            value, parts = self._reconstruction_loss(batch, joined.embeddings)
            if self.options.alignment:
                aligned = self._alignment_loss(batch, images, read.vectors, false.vectors)
                value = value + self.options.alignment * aligned
                parts["alignment_loss"] = aligned.detach()
            return Loss(value, len(batch.articles), parts)
        logits, heads = self.classify(joined, batch.articles), self.options.parsed_heads
        losses = {
            head.name: self._head_loss(own, batch.labels[:, column])
            for column, (head, own) in enumerate(zip(heads, logits, strict=True))
        }
        parts = {f"{name}_loss": value.detach() for name, value in losses.items()}
        return Loss(torch.stack(list(losses.values())).sum(), len(batch.articles), parts)

    forward = loss

    def _reconstruction_loss(
        self, batch: RelationBatch, embeddings: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the losses of text and thumbnail, and both.

        The loss of the text is the mean cross-entropy per word. That of the thumbnail is the mean
        squared error as a multiple of that of the mean training thumbnail.
        """
        assert batch.thumbnails is not None
        text = self.text_decoder.cross_entropy(
            embeddings, batch.articles, self.articles.words.weight
        )
        targets = self.image_decoder.normalise(batch.thumbnails)[batch.image_of_text]
        image = F.mse_loss(self.image_decoder(embeddings).float(), targets)
        return text + image, {"text_loss": text.detach(), "image_loss": image.detach()}

    def _alignment_loss(
        self, batch: RelationBatch, images: EmbeddedImages, true: Tensor, false: Tensor
    ) -> Tensor:
        """Return the InfoNCE loss of all sentences and images of the batch, per sentence.

        To it is added the cross-entropy of telling each sentence from the contradictions of its
        image. In one softmax with the sentences of other images, they would count for little. true
        (K, S): vectors of the sentences. false (C, S): those of the contradictions.
        """
        owner = batch.image_of_text[batch.articles.text_of_sentence]
        with torch.autocast(true.device.type, enabled=False):
            scale = self.log_scale.exp().clamp_max(MAX_SCALE) / true.shape[1]
            scores = images.embeddings @ true.T * scale  # (B, K)
            loss = info_nce(scores, owner)
            if batch.image_of_contradiction is not None:
                own = own_texts(batch.image_of_contradiction, len(scores))
                wrong = images.embeddings @ false.T * scale  # (B, C)
                wrong = wrong.masked_fill(~own, torch.finfo(wrong.dtype).min).logsumexp(1)
                loss = loss + F.softplus(wrong[owner] - scores.gather(0, owner[None])[0]).sum()
            return loss / len(owner)

    def _head_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the texts that have the head's label; 0 if there are none."""
        known = labels != MISSING
        targets = labels.clamp_min(0)
        if self.options.loss == "ordinal":
            losses = ordinal_loss(logits, targets)
        else:
            losses = F.cross_entropy(logits, targets, reduction="none")
        return (losses * known).sum() / known.sum().clamp_min(1)


def ordinal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance (N,) between predicted and true cumulative distributions.

    logits (N, L): scores of the levels in ascending order. targets (N,): index of the true level.
    Probability far from the target costs more (Hou et al. 2016, "Squared earth mover's
    distance-based loss").
    """
    reached = torch.arange(logits.shape[1], device=logits.device) >= targets[:, None]
    return (logits.softmax(1).cumsum(1) - reached.float()).square().sum(1)
