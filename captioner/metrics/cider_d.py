"""CIDEr-D of captions as tokens, fast enough to be a reward; `metrics` itself scores sentences.

Shapes: B images, C captions of each to be scored, R references of each, T words of the longest,
G n-grams known.
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
    """CIDEr-D (Vedantam et al. 2015) whose document frequencies are those of given references.

    An n-gram is one number, its tokens being the digits. base: of these numbers, the size of the
    vocabulary. ngrams (G,): those of the references, ascending. rarity (G,): the logarithm of
    images over images that have the n-gram. unseen: the same for one that no image has.
    """

    base: int
    ngrams: Tensor
    rarity: Tensor
    unseen: float

    @classmethod
    def of(cls, captions: Sequence[list[list[int]]], vocabulary_size: int) -> "CiderD":
        """captions: each image's references, from start to end token as `encode_captions` does.

        Raises InputError where the vocabulary is too large for four tokens in one number.
        """
        if vocabulary_size ** max(ORDERS) >= 2**63:
            raise InputError(
                f"{vocabulary_size} words are too many for training by reward, which takes up to "
                "55,108; a higher --min-count leaves fewer"
            )
        found = []
        for first in range(0, len(captions), 256):
            tokens = pad_captions(captions[first : first + 256])[..., 1:]
            each = [ngram_ids(tokens, n, vocabulary_size).flatten(1) for n in ORDERS]
            ascending = F.pad(torch.cat(each, 1), (1, 0)).sort(1).values
            found.append(ascending[:, 1:][ascending.diff(dim=1) > 0])  # each once per image
        ngrams, images = torch.cat(found).unique(return_counts=True)
        unseen = math.log(len(captions))
        return cls(vocabulary_size, ngrams, unseen - images.log(), unseen)

    def to(self, device: torch.device) -> "CiderD":
        return replace(self, ngrams=self.ngrams.to(device), rarity=self.rarity.to(device))

    def score(self, captions: Tensor, references: Tensor) -> Tensor:
        """Score captions (B, C, T) against the references (B, R, T') of the same images: (B, C).

        Tokens without the start, padded with 0; an image's score is the mean over its references
        that have words. The end token is a word like any other, so that a caption that stops in
        the midst scores less. An <unk> is like no word of the references. 1.0 is what is commonly
        reported as 100.
        """
        captions = captions.masked_fill(captions == Vocabulary.UNKNOWN, Vocabulary.START)
        likeness = torch.stack([self._likeness(captions, references, n) for n in ORDERS]).mean(0)
        # pycocoevalcap counts pairs of words
        lengths, their_lengths = ((x != 0).sum(-1).sub(1).clamp(0) for x in (captions, references))
        apart = lengths[:, :, None] - their_lengths[:, None]  # (B, C, R)
        likeness = likeness * torch.exp(-(apart**2) / (2 * SIGMA**2))
        return 10 * likeness.sum(-1) / (references[..., 0] != 0).sum(-1, keepdim=True)

    def _likeness(self, captions: Tensor, references: Tensor, n: int) -> Tensor:
        """Clipped cosines (B, C, R) of the tf-idf vectors of n-grams.

        A sum over distinct n-grams is one over places, each with its share of the n-gram's count.
        """
        mine, theirs = ngram_ids(captions, n, self.base), ngram_ids(references, n, self.base)
        rarity, their_rarity = self._rarity(mine), self._rarity(theirs)  # (B, C, T)
        count, their_count = ngram_counts(mine, mine), ngram_counts(theirs, theirs)
        norm = (count * rarity**2).sum(-1).sqrt()
        their_norm = (their_count * their_rarity**2).sum(-1).sqrt()
        found = ngram_counts(mine[:, :, None], theirs[:, None])  # (B, C, R, T)
        count = count[:, :, None]
        product = (found.minimum(count) * found / count * rarity[:, :, None] ** 2).sum(-1)
        return product / (norm[:, :, None] * their_norm[:, None]).clamp(min=1e-12)

    def _rarity(self, ids: Tensor) -> Tensor:
        place = torch.searchsorted(self.ngrams, ids).clamp_(max=len(self.ngrams) - 1)
        known = self.ngrams[place] == ids
        return self.rarity[place].where(known, self.unseen).masked_fill(ids == 0, 0)
