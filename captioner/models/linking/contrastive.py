"""Contrastive losses of the image-text pairs of a batch, computed from their score matrix.

Shapes: B images, N texts. An image has one or more texts; none of them is a negative of the image.
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


def info_nce(scores: Tensor, image_of_text: Tensor) -> Tensor:
    """Return the InfoNCE loss: half the sum of the cross-entropies (nats) in both directions.

    scores (B, N): cosines divided by the temperature. For each text, one cross-entropy classifies
    its image among all images, and the other classifies the text among itself and the texts of
    other images (van den Oord et al. 2018; Radford et al. 2021, figure 3).
    """
    own = own_texts(image_of_text, len(scores))
    to_images = F.cross_entropy(scores.T, image_of_text, reduction="sum")
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    # Finite, as the gradient would be NaN if a batch had only one image.
    lowest = torch.finfo(scores.dtype).min
    others = scores.masked_fill(own, lowest).logsumexp(1)  # (B,), over texts of other images
    to_texts = F.softplus(others[image_of_text] - right).sum()
    return (to_images + to_texts) / 2


def sum_of_hinges(scores: Tensor, image_of_text: Tensor, margin: float) -> Tensor:
    """Return the sum of the hinge losses of all negative pairs in both directions.

    scores (B, N): cosines. Each text is compared with every other image, and its image with every
    text of another image, as in the ranking loss of Kiros et al. 2015, section 3.3.
    """
    own = own_texts(image_of_text, len(scores))
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    wrong_images = (margin - right + scores).clamp_min(0).masked_fill(own, 0)  # (B, N)
    wrong_texts = margin - right[:, None] + scores[image_of_text]  # (N, N)
    wrong_texts = wrong_texts.clamp_min(0).masked_fill(own[image_of_text], 0)
    return wrong_images.sum() + wrong_texts.sum()


def random_hinges(right: Tensor, wrong: Tensor, margin: float) -> Tensor:
    """Return the hinge losses of pairs and one wrong pair each, summed.

    right (N,): scores of texts with their images. wrong (N,): scores of these images with a text of
    another image.
    """
    return (margin - right + wrong).clamp_min(0).sum()


def relative_loss(hinges: Callable[[Tensor], Tensor], scores: Tensor, value: Tensor) -> Tensor:
    """Return a hinge loss as a multiple of its value for equal scores, detached; 1: collapsed.

    hinges: the loss as a function of scores (B, N). value: hinges(scores). NaN if the margin is 0.
    """
    with torch.no_grad():
        return value.detach() / hinges(torch.zeros_like(scores))


def hardest_hinges(scores: Tensor, image_of_text: Tensor, margin: float) -> Tensor:
    """Return the sum of the hinge losses of each pair's hardest negative image and text.

    scores (B, N): cosines. See Faghri et al. 2018 (VSE++), equation 6.
    """
    wrong = scores.masked_fill(own_texts(image_of_text, len(scores)), -torch.inf)
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    hardest_image = wrong.amax(0)  # (N,)
    hardest_text = wrong.amax(1)[image_of_text]  # (N,)
    hinges = [(margin - right + hardest).clamp_min(0) for hardest in (hardest_image, hardest_text)]
    return torch.stack(hinges).sum()
