"""Losses of image-text pairs within a batch, from a matrix of their scores.

Shapes: B images, N texts; an image has one text or several. An image's own other texts are never
its negatives.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def own_texts(image_of_text: Tensor, images: int) -> Tensor:
    """Return the mask (B, N) of each image's own texts; image_of_text (N,)."""
    rows = torch.arange(images, device=image_of_text.device)
    return rows[:, None] == image_of_text


def info_nce(scores: Tensor, image_of_text: Tensor) -> Tensor:
    """Return the InfoNCE loss, the summed cross-entropy (nats) of both directions.

    scores (B, N): cosines divided by the temperature. Each text is classified among all images, and
    among the texts of other images for its image (van den Oord et al. 2018; Radford et al. 2021,
    figure 3), divided by 2.
    """
    own = own_texts(image_of_text, len(scores))
    to_images = F.cross_entropy(scores.T, image_of_text, reduction="sum")
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    others = scores.masked_fill(own, -torch.inf).logsumexp(1)  # (B,), over texts of other images
    to_texts = F.softplus(others[image_of_text] - right).sum()
    return (to_images + to_texts) / 2


def sum_of_hinges(scores: Tensor, image_of_text: Tensor, margin: float) -> Tensor:
    """Return the hinge losses of all wrong pairs in both directions, summed.

    scores (B, N): cosines. Each text is compared with every other image, and its image with every
    text of another image: the ranking loss of Kiros et al. 2015, section 3.3.
    """
    own = own_texts(image_of_text, len(scores))
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    wrong_images = (margin - right + scores).clamp_min(0).masked_fill(own, 0)  # (B, N)
    wrong_texts = margin - right[:, None] + scores[image_of_text]  # (N, N)
    wrong_texts = wrong_texts.clamp_min(0).masked_fill(own[image_of_text], 0)
    return wrong_images.sum() + wrong_texts.sum()


def hardest_hinges(scores: Tensor, image_of_text: Tensor, margin: float) -> Tensor:
    """Return the hinge losses of the hardest wrong image and text of each pair, summed.

    scores (B, N): cosines. Faghri et al. 2018 (VSE++), equation 6.
    """
    wrong = scores.masked_fill(own_texts(image_of_text, len(scores)), -torch.inf)
    right = scores.gather(0, image_of_text[None])[0]  # (N,)
    hardest_image = wrong.amax(0)  # (N,)
    hardest_text = wrong.amax(1)[image_of_text]  # (N,)
    hinges = [(margin - right + hardest).clamp_min(0) for hardest in (hardest_image, hardest_text)]
    return torch.stack(hinges).sum()
