"""CIDEr-D of captions as token tensors, fast enough to serve as a training reward.

Sentences are scored in captions.py.

Shapes: B images, C captions to score per image, R references per image, T and T' tokens of the
longest caption and reference, G n-grams in the references.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..text.collate import pad_captions
from ..text.ngrams import ORDERS, ngram_counts, ngram_ids
from ..text.vocabulary import Vocabulary

SIGMA = 6.0


@dataclass(frozen=True)
class CiderD:
    """CIDEr-D (Vedantam et al. 2015) with document frequencies counted in a set of references.

    An n-gram is encoded as one integer whose digits are its tokens. base: the base of this
    encoding, the vocabulary size. ngrams (G,): n-grams of the references, in ascending order.
    idf (G,): their inverse document frequencies, log(images / images with the n-gram). unseen:
    inverse document frequency of an n-gram that occurs in no image's references.
    """

    base: int
    ngrams: Tensor
    idf: Tensor
    unseen: float

    @classmethod
    def of(cls, captions: Sequence[list[list[int]]], vocabulary_size: int) -> "CiderD":
        """Create the metric from the document frequencies of references.

        captions: each image's references, from start to end token, as returned by
        `encode_captions`. Raises InputError if the vocabulary is too large to encode four tokens in
        an int64.
        """
        if vocabulary_size ** max(ORDERS) >= 2**63:
            raise InputError(
                f"--self-critical supports vocabularies of up to 55,108 tokens, got "
                f"{vocabulary_size}; raise --min-count"
            )
        unique_per_image = []
        for first in range(0, len(captions), 256):
            tokens = pad_captions(captions[first : first + 256])[..., 1:]
            ids = [ngram_ids(tokens, n, vocabulary_size).flatten(1) for n in ORDERS]
            ascending = F.pad(torch.cat(ids, 1), (1, 0)).sort(1).values
            # An n-gram counts once per image; the 0 in front removes the padding's id, 0.
            unique_per_image.append(ascending[:, 1:][ascending.diff(dim=1) > 0])
        ngrams, images = torch.unique(torch.cat(unique_per_image), return_counts=True)
        unseen = math.log(len(captions))
        return cls(vocabulary_size, ngrams, unseen - images.log(), unseen)

    def to(self, device: torch.device) -> "CiderD":
        """Return a copy whose tensors are on `device`."""
        return replace(self, ngrams=self.ngrams.to(device), idf=self.idf.to(device))

    def score(self, captions: Tensor, references: Tensor) -> Tensor:
        """Score captions (B, C, T) against the references (B, R, T') of the same images: (B, C).

        Tokens exclude the start token and are padded with 0. A caption's score is the mean over the
        non-empty references of its image. The end token counts as a word, so that a truncated
        caption scores lower. <unk> matches no word of the references. 1.0 corresponds to a reported
        CIDEr of 100.
        """
        captions = captions.masked_fill(captions == Vocabulary.UNKNOWN, Vocabulary.START)
        by_order = torch.stack([self._similarity(captions, references, n) for n in ORDERS])
        similarity = by_order.mean(0)
        # pycocoevalcap's length is the number of bigrams.
        lengths, ref_lengths = ((x != 0).sum(-1).sub(1).clamp(0) for x in (captions, references))
        difference = lengths[:, :, None] - ref_lengths[:, None]  # (B, C, R)
        similarity = similarity * torch.exp(-(difference**2) / (2 * SIGMA**2))
        return 10 * similarity.sum(-1) / (references[..., 0] != 0).sum(-1, keepdim=True)

    def _similarity(self, captions: Tensor, references: Tensor, n: int) -> Tensor:
        """Compute the clipped cosines (B, C, R) of the tf-idf vectors of n-grams.

        A sum over distinct n-grams is computed as a sum over positions, in which each occurrence
        of an n-gram contributes 1 / count of its term, because tensors of distinct n-grams would
        be ragged.
        """
        ids, ref_ids = ngram_ids(captions, n, self.base), ngram_ids(references, n, self.base)
        idf, ref_idf = self._lookup_idf(ids), self._lookup_idf(ref_ids)  # (B, C, T), (B, R, T')
        count, ref_count = ngram_counts(ids, ids), ngram_counts(ref_ids, ref_ids)
        norm = (count * idf**2).sum(-1).sqrt()
        ref_norm = (ref_count * ref_idf**2).sum(-1).sqrt()
        in_reference = ngram_counts(ids[:, :, None], ref_ids[:, None])  # (B, C, R, T)
        count = count[:, :, None]
        terms = in_reference.minimum(count) * in_reference / count * idf[:, :, None] ** 2
        return terms.sum(-1) / (norm[:, :, None] * ref_norm[:, None]).clamp(min=1e-12)

    def _lookup_idf(self, ids: Tensor) -> Tensor:
        """Return the inverse document frequency of each n-gram id; 0 for padding, whose id is 0."""
        index = torch.searchsorted(self.ngrams, ids).clamp_(max=len(self.ngrams) - 1)
        known = self.ngrams[index] == ids
        return self.idf[index].where(known, self.unseen).masked_fill(ids == 0, 0)
