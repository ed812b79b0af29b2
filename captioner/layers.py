"""Two pieces of recurrent networks that torch has as well, but slower on a CPU; no models."""

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
