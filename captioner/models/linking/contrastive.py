"""Contrastive losses of the image-text pairs of a batch, computed from their score matrix.

An image's own texts are never used as its negatives. The mask of own texts may also include texts
of other images if they are equal to one of the image's texts.

Shapes: B images, N texts; an image has one or more texts.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

RELATIVE = "relative_loss"  # the part of a `Loss` from `relative_loss`


def own_texts(image_of_text: Tensor, images: int) -> Tensor:
    """Return a mask (B, N) that is True where a text belongs to an image.

    image_of_text (N,): index of each text's image. images: B.
    """
    rows = torch.arange(images, device=image_of_text.device)
    return rows[:, None] == image_of_text


def info_nce(
    scores: Tensor,
    image_of_text: Tensor,
    own: Tensor | None = None,
    further: Tensor | None = None,
) -> Tensor:
    """Return the InfoNCE loss: half the sum of the cross-entropies (nats) in both directions.

    scores (B, N): cosines divided by the temperature. For each text, one cross-entropy is over its
    image and the negative images, the other over the text and the negative texts of its image (van
    den Oord et al. 2018; Radford et al. 2021, figure 3). own (B, N): mask of each image's own
    texts; None selects `own_texts`. further (N,): the score of each text's image with one more
    negative text, such as one with exchanged words; the lowest finite number of the dtype where
    there is none. None adds no such texts.
    """
    own = own_texts(image_of_text, len(scores)) if own is None else own
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    # Finite, as the gradient would be NaN if a batch had only one image.
    wrong = scores.masked_fill(own, torch.finfo(scores.dtype).min)
    to_images = image_cross_entropy(scores, image_of_text, own)
    wrong_texts = wrong.logsumexp(1)[image_of_text]
    if further is not None:
        wrong_texts = torch.logaddexp(wrong_texts, further)
    to_texts = F.softplus(wrong_texts - right).sum()
    return (to_images + to_texts) / 2


def image_cross_entropy(scores: Tensor, image_of_text: Tensor, own: Tensor) -> Tensor:
    """Return the summed cross-entropy (nats) of telling each text's image from negative images.

    scores (B, N), image_of_text (N,) and own (B, N): as in `info_nce`.
    """
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    wrong = scores.masked_fill(own, torch.finfo(scores.dtype).min)
    return F.softplus(wrong.logsumexp(0) - right).sum()


def sum_of_hinges(
    scores: Tensor,
    image_of_text: Tensor,
    margin: float,
    own: Tensor | None = None,
    further: Tensor | None = None,
) -> Tensor:
    """Return the sum of the hinge losses of all negative pairs in both directions.

    scores (B, N): cosines. Each text is compared with every negative image, and its image with
    every negative text, as in the ranking loss of Kiros et al. 2015, section 3.3. own, further:
    as in `info_nce`.
    """
    own = own_texts(image_of_text, len(scores)) if own is None else own
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    wrong_images = (margin - right + scores).clamp_min(0).masked_fill(own, 0)  # (B, N)
    wrong_texts = margin - right[:, None] + scores[image_of_text]  # (N, N)
    wrong_texts = wrong_texts.clamp_min(0).masked_fill(own[image_of_text], 0)
    total = wrong_images.sum() + wrong_texts.sum()
    return total if further is None else total + random_hinges(right, further, margin)


def random_hinges(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Return the sum of the hinge losses of positive pairs, each against one negative pair.

    right (N,): scores of the positive pairs. wrong (N,): scores of the same images with a text of
    another image.
    """
    return (margin - right + wrong).clamp_min(0).sum()


def relative_loss(hinges: Callable[[Tensor], Tensor], scores: Tensor, value: Tensor) -> Tensor:
    """Return the ratio, detached, of a hinge loss to its value for equal scores.

    A ratio of 1 indicates that the embeddings have collapsed.

    hinges: the loss as a function of scores (B, N). value: the result of hinges(scores). The ratio
    is infinite or NaN if the margin is 0, and NaN if there are no negative pairs.
    """
    with torch.no_grad():
        return value.detach() / hinges(torch.zeros_like(scores))


def hardest_hinges(
    scores: Tensor,
    image_of_text: Tensor,
    margin: float,
    own: Tensor | None = None,
    further: Tensor | None = None,
) -> Tensor:
    """Return the summed hinge losses of all pairs against their hardest negative image and text.

    scores (B, N): cosines. See Faghri et al. 2018 (VSE++), equation 6. own, further: as in
    `info_nce`.
    """
    own = own_texts(image_of_text, len(scores)) if own is None else own
    wrong = scores.masked_fill(own, -torch.inf)
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    hardest_image = wrong.amax(0)  # (N,)
    hardest_text = wrong.amax(1)[image_of_text]  # (N,)
    if further is not None:
        hardest_text = torch.maximum(hardest_text, further)
    hinges = [(margin - right + hardest).clamp_min(0) for hardest in (hardest_image, hardest_text)]
    return torch.stack(hinges).sum()


def choose_negatives(own: Tensor, most: int | None) -> Tensor:
    """Return a mask (B, N): True for up to `most` random negative images of each text.

    own (B, N): mask of each image's own texts, which are never negatives. None chooses all others.
    """
    if most is None or most >= len(own):
        return ~own
    order = torch.rand(own.shape, device=own.device).masked_fill(own, -1)
    chosen = torch.zeros_like(own).scatter(0, order.topk(most, 0).indices, True)
    return chosen & ~own


def shifted_hinges(scores: Tensor, others: Tensor, own: Tensor, margin: float) -> Tensor:
    """Return the mean hinge loss of negative pairs, each compared with two positive pairs.

    scores (1 + K, N): those of texts with their images, followed by those of each text n with the
    image of another text m. others (K, N): the m. own (K, N): True where text n is also one of that
    image's own, so that the pair is not negative. A negative pair is compared with text n and its
    image, and with text m and its image. Without any negatives, the loss is 0.
    """
    right, wrong = scores[0], scores[1:]
    for_texts = (margin - right + wrong).clamp_min(0)
    for_images = (margin - right[others] + wrong).clamp_min(0)
    total = (for_texts + for_images).masked_fill(own, 0).sum()
    return total / (2 * (~own).sum()).clamp_min(1)
