"""Shared layers: padded rows, an LSTM cell, dropout, and standardisation of feature maps."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_STEP = 128  # between the row counts to which many rows are padded


def pad_rows(rows: Tensor, smallest_step: int = 1) -> Tensor:
    """Pad rows (..., n, I) with zeros up to `padded_count`, for bfloat16 products on a CPU.

    oneDNN compiles and caches a program for every shape, so memory use would keep growing if the
    number of rows differed from batch to batch. The results of the real rows, and products that sum
    over the rows, are bit-identical to those without padding. In float32 they would not be, and
    oneDNN caches nothing per shape, so float32 rows are returned unchanged.
    """
    if not _caches_shapes(rows):
        return rows
    missing = padded_count(rows.shape[-2], smallest_step) - rows.shape[-2]
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def padded_count(count: int, smallest_step: int = 1) -> int:
    """Round a number of rows up to a multiple of a sixteenth of the next power of two.

    That sixteenth is clamped to the range from smallest_step to LARGEST_STEP.
    """
    sixteenth = (1 << max(0, count - 1).bit_length()) // 16
    step = min(LARGEST_STEP, max(smallest_step, sixteenth))
    return -(-count // step) * step


def in_blocks(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function to tensors (B, ...), where `pad_rows` would pad in blocks of 2^k images.

    Batches of all sizes then need few shapes, without products of padding. The result for an image
    must not depend on the others.
    """
    if not _caches_shapes(tensors[0]):
        return function(*tensors)
    count = len(tensors[0])
    if count & (count - 1) == 0:
        return function(*tensors)
    sizes = [1 << bit for bit in reversed(range(count.bit_length())) if count >> bit & 1]
    blocks = zip(*(torch.split(tensor, sizes) for tensor in tensors), strict=True)
    return torch.cat([function(*block) for block in blocks])


def _caches_shapes(rows: Tensor) -> bool:
    """Return whether oneDNN would compile and cache a program for the shape of a product."""
    half = rows.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return half and rows.device.type == "cpu"


def on_padded_rows(layer: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a layer to rows (..., I), which are padded for the call only; see `pad_rows`."""
    flat = rows.flatten(0, -2)
    padded = pad_rows(flat)
    return layer(rows) if padded is flat else layer(padded)[: len(flat)].view(*rows.shape[:-1], -1)


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute an LSTM's new hidden state and cell (..., H) from its gates and previous cell.

    gates (..., 4H): gate pre-activations in torch's order. cell (..., H): previous cell. The cell
    is computed and returned in float32, because rounding errors would accumulate over the steps;
    the hidden state has the dtype of the gates. This is the LSTM of Hochreiter and Schmidhuber
    1997 with forget gates.
    """
    size, dtype, gates = cell.shape[-1], gates.dtype, gates.float()
    input_gate, forget_gate = torch.sigmoid(gates[..., : 2 * size]).chunk(2, dim=-1)
    cell = forget_gate * cell + input_gate * torch.tanh(gates[..., 2 * size : 3 * size])
    hidden = torch.sigmoid(gates[..., 3 * size :]) * torch.tanh(cell)
    return hidden.to(dtype), cell


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
