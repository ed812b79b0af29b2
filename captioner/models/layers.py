"""Layers of the models: LSTM cell, dropout, standardisation of feature maps."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Gates (..., 4H) in torch's order and cell (..., H) -> new hidden state and cell, (..., H).

    The cell is computed and returned in float32, since rounding would accumulate over the steps;
    the hidden state has the dtype of the gates. Hochreiter and Schmidhuber 1997, with forget gates.
    """
    size, dtype, gates = cell.shape[-1], gates.dtype, gates.float()
    input_gate, forget_gate = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
    cell = forget_gate * cell + input_gate * torch.tanh(gates[..., 2 * size : 3 * size])
    hidden = torch.sigmoid(gates[..., 3 * size :]) * torch.tanh(cell)
    return hidden.to(dtype), cell


class Dropout(nn.Dropout):
    """Dropout whose mask on a CPU comes from uniform numbers, four times as fast as torch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        mask = torch.rand(inputs.shape, device=inputs.device).ge_(self.p).mul_(1 / (1 - self.p))
        return inputs * mask.to(inputs.dtype)


class Standardize(nn.Module):
    """Feature maps (B, D, h, w) minus their mean, divided by their standard deviation, per channel.

    Mean and deviation are measured once by `measure`; before that the maps pass unchanged.
    The channels of a network trained for another task have very different means and scales, and
    what all images have in common would dominate what distinguishes them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, maps: Iterable[Tensor]) -> None:
        """Set mean and standard deviation from at least one batch of maps (B, D, h, w).

        Each standard deviation is at least a tenth of their mean, so that the noise of nearly
        constant channels is not amplified.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in maps:
            values = batch.detach().double().transpose(0, 1).flatten(1)  # (D, B * h * w)
            count += values.shape[1]
            total = total.to(values) + values.sum(1)
            squares = squares.to(values) + values.square().sum(1)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        minimum = deviation.mean() / 10
        self.mean.copy_(mean)
        self.deviation.copy_(deviation.clamp_min(minimum if minimum > 0 else 1))

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.mean[:, None, None]) / self.deviation[:, None, None]
