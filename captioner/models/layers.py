"""Shared layers: LSTM calls and cells, dropout, and standardisation of feature maps."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute an LSTM's new hidden state and cell (..., H) from its gates and previous cell.

    gates (..., 4H): gate pre-activations in torch's order. cell (..., H): previous cell. The cell
    is computed and returned in float32, because rounding errors would accumulate over the steps;
    the hidden state has the dtype of the gates. This is the LSTM of Hochreiter and Schmidhuber
    1997 with forget gates.
    """
    size, dtype, gates = cell.shape[-1], gates.dtype, gates.float()
    input_gate, forget_gate = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
    cell = forget_gate * cell + input_gate * tanh(gates[..., 2 * size : 3 * size])
    hidden = torch.sigmoid(gates[..., 3 * size :]) * tanh(cell)
    return hidden.to(dtype), cell


def call_lstm(lstm: nn.LSTM, steps: Any, state: tuple[Tensor, ...] | None = None) -> Any:
    """Return lstm(steps, state), in float32 on x86 CPUs without AVX-512.

    There, oneDNN has no LSTM in bfloat16, and torch 2.14 raises RuntimeError under autocast. steps:
    a tensor (B, T, I) with the batch first, or a PackedSequence. state: hidden state and cell, both
    (1, B, H), or None for zeros. Returns what the LSTM does: outputs, and the last state and cell.
    """
    able = torch.cpu.get_capabilities()
    lacks = able.get("architecture") == "x86_64" and not able.get("avx512_vl", False)
    if lstm.weight_hh_l0.device.type != "cpu" or not lacks:
        return lstm(steps, state)
    with torch.autocast("cpu", enabled=False):
        return lstm(steps.float(), None if state is None else tuple(x.float() for x in state))


def tanh(values: Tensor) -> Tensor:
    """Compute tanh as 2 sigmoid(2 x) - 1, which takes a fifth of the time on a CPU."""
    if values.device.type != "cpu":
        return torch.tanh(values)
    return torch.sigmoid(2 * values).mul(2).sub(1)


class Dropout(nn.Dropout):
    """Dropout that draws CPU masks with torch.rand, which is four times as fast as torch's."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        mask = torch.rand(inputs.shape, device=inputs.device).ge_(self.p).mul_(1 / (1 - self.p))
        return inputs * mask.to(inputs.dtype)


class Standardize(nn.Module):
    """Standardisation of feature maps (B, D, h, w) by the mean and std of each channel.

    `measure` sets the mean and the std once; until then, the maps are returned unchanged. The
    channels of a network trained for another task have very different means and scales; without
    standardisation, features common to all images would dominate those that distinguish them.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, maps: Iterable[Tensor]) -> None:
        """Set the mean and std of each channel from at least one batch of maps (B, D, h, w).

        Each std is clamped to at least a tenth of the mean std, so that noise in nearly constant
        channels is not amplified. If all channels are constant, every std is set to 1.
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
