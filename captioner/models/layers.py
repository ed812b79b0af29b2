"""Small pieces of the captioning models: an LSTM cell and a dropout that are quicker on a CPU than
torch's, and the scale of feature maps; no models.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates (..., 4H) in torch's order and cell (..., H) -> hidden state and cell, in float32.

    The hidden state comes in the precision of the gates. Hochreiter and Schmidhuber 1997, with
    forget gates.
    """
    size, precision, gates = cell.shape[-1], gates.dtype, gates.float()
    enter, forget = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
    cell = forget * cell + enter * torch.tanh(gates[..., 2 * size : 3 * size])
    hidden = torch.sigmoid(gates[..., 3 * size :]) * torch.tanh(cell)
    return hidden.to(precision), cell


class Dropout(nn.Dropout):
    """torch's, which on a CPU takes four times as long to draw its mask."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        kept = torch.rand(inputs.shape, device=inputs.device).ge_(self.p).mul_(1 / (1 - self.p))
        return inputs * kept.to(inputs.dtype)


class Standardize(nn.Module):
    """The channels of feature maps (B, D, h, w) less their mean, over their standard deviation.

    Both are those of the maps given to `measure`; before that nothing is changed. Channels of a
    network trained for something else have means and scales of their own, and what is alike in all
    images drowns what is not.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, maps: Iterable[Tensor]) -> None:
        """Take over mean and deviation of the maps (B, D, h, w), of which there must be some.

        A channel that hardly varies is not stretched more than ten times as far as the mean one.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for some in maps:
            values = some.detach().double().transpose(0, 1).flatten(1)  # (D, B * h * w)
            count += values.shape[1]
            total = total.to(values) + values.sum(1)
            squares = squares.to(values) + values.square().sum(1)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        least = deviation.mean() / 10
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(least if least > 0 else 1))

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.mean[:, None, None]) / self.deviation[:, None, None]
