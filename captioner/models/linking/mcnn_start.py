"""Initial weights of an m-CNN with which a text is its words, and scores grow with similarity."""

import math

import torch

from .mcnn import WINDOW, MultimodalCNN

START = 0.3  # factor of the similarity as which a model starts: scores differ by about 0.1


def start_as_similarity(model: MultimodalCNN) -> None:
    """Set weights with which scores grow with similarity; useful with a pretrained encoder."""
    with torch.no_grad():
        _pass_on_words(model)
        _compare(model)


def _pass_on_words(model: MultimodalCNN) -> None:
    """Set the convolutions below the layer that reads the image, so that texts differ by words.

    The first weights the words of a window equally. For the others, weights that pass on the mean
    of a window are added to half of the random weights, since random layers one above the other
    would leave little of the words.
    """
    for number, layer in enumerate(list(model.layers)[: model.merging]):
        weight = torch.unflatten(layer.weight, 1, (WINDOW, -1))  # (C', WINDOW, C)
        if number == 0:
            weight.copy_(weight[:, :1].expand_as(weight).clone())
        else:
            weight.mul_(0.5).add_(torch.eye(len(weight))[:, None] / WINDOW)


def _compare(model: MultimodalCNN) -> None:
    """Set the layer that reads the image and the layers above, so that similar pairs score more.

    In the layer that reads the image, units form groups of four, with the inputs a + b, a - b,
    -a + b and -a - b, where a is from the text and b from the image. Counted with the signs of ab,
    their outputs add up to |a + b| - |a - b|, which is larger the more a and b agree. In the layers
    above, weights that pass on that sum are added to half of the random weights.
    """
    layer, *above = list(model.layers)[model.merging :]
    rows, image_weight = layer.out_features // 4 * 4, model.image_layer.weight
    for number, (text, image) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        layer.weight[number:rows:4] = text * layer.weight[:rows:4]
        image_weight[number:rows:4] = image * image_weight[:rows:4]
    signs = torch.zeros(layer.out_features)
    signs[:rows] = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(rows // 4)
    layer.bias.zero_()
    model.output.weight.zero_()
    scale = math.sqrt(layer.out_features)  # the units of different groups are independent
    for linear in (*above, model.output):
        count = linear.in_features // len(signs)  # units of the layer below
        inputs = signs.repeat(count) / (scale * count)
        signs, scale = torch.ones(linear.out_features), linear.out_features / 2
        signs[1::2] = -1  # these units have the sum if it is negative, the others if positive
        linear.weight.mul_(0.5).add_(signs[:, None] * inputs)
        linear.bias.zero_()
    model.output.weight.mul_(START)
