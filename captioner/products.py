"""Matrix products: their number format in decoding, and the row counts to which they are padded.

Decoding multiplies by the same weights at every step. Autocast would convert them every time,
because it keeps no converted weights in inference mode; here, a converted weight is kept until the
weight changes. The operations between the products stay in float32.

Shapes: n rows, I inputs, O outputs.
"""

import math
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from .devices import pick_format

LARGEST_STEP = 128  # between the row counts to which many rows are padded
LARGEST_TABLE = 2**24  # numbers; 64 MiB in float32

Compute: TypeAlias = Callable[[], Tensor]

_format: ContextVar[str] = ContextVar("format", default="float32")


@contextmanager
def decoding_in(precision: str, device: torch.device) -> Iterator[None]:
    """Let `product` use the number format of `devices.pick_format` within the context.

    Raises InputError as `pick_format` does.
    """
    token = _format.set(pick_format(precision, device))
    try:
        # Autocast would only add the cost of its dispatch to each of the small operations.
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _format.reset(token)


@contextmanager
def compiled_products(device: torch.device) -> Iterator[None]:
    """Let compiled code use the number format of `decoding_in` by autocast, which it can fuse.

    "int8" is replaced by bfloat16, because torch.compile does not fuse 8-bit products.
    """
    half = _format.get() != "float32"
    token = _format.set("float32")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            yield
    finally:
        _format.reset(token)


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return rows (..., I) @ weight.T + bias as (..., O), with weight (O, I) and bias (O,).

    Within `decoding_in`, the product uses its number format, and the result is float32. Outside, in
    the format "float32" and while gradients are enabled, this is `F.linear`, to which autocast
    applies. Rows are padded as in `pad_rows`.
    """
    return on_padded_rows(lambda x: _multiply(x, weight, bias), rows)


def layer_product(rows: Tensor, layer: nn.Linear) -> Tensor:
    """Return layer(rows) by `product`."""
    if _is_ordinary():
        return on_padded_rows(layer, rows)
    return product(rows, layer.weight, layer.bias)


def product_in_blocks(rows: Tensor, layer: nn.Linear) -> Tensor:
    """Return layer(rows) by `product` for rows (B, ..., I), divided as in `in_blocks`."""
    if _is_ordinary():
        return in_blocks(layer, rows)
    return in_blocks(lambda x: _multiply(x, layer.weight, layer.bias), rows)


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    number_format = _format.get()
    if _is_ordinary() or not rows.numel():
        return F.linear(rows, weight, bias)
    if number_format == "int8":
        return _int8_product(rows.float(), _converted(weight, bias, "int8").values)
    return F.linear(rows.bfloat16(), *_converted(weight, bias, "bfloat16").values).float()


def _is_ordinary() -> bool:
    return _format.get() == "float32" or torch.is_grad_enabled()


@dataclass(frozen=True)
class _Converted:
    """A weight and its bias in a number format. key: their `_state_of` when they were converted."""

    key: tuple[object, ...]
    values: Any


# By number format, then by weight.
_kept: dict[str, MutableMapping[Tensor, _Converted]] = {
    "bfloat16": WeakTensorKeyDictionary(),
    "int8": WeakTensorKeyDictionary(),
}


def _converted(weight: Tensor, bias: Tensor | None, number_format: str) -> _Converted:
    key = (*_state_of(weight), *(() if bias is None else _state_of(bias)))
    kept = _kept[number_format]
    found = kept.get(weight)
    if found is None or found.key != key:
        convert = _pack if number_format == "int8" else _halve
        found = kept[weight] = _Converted(key, convert(weight, bias))
    return found


class KeptTable:
    """A table with a row per word, computed when that pays and kept until its weights change."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._rows = 0
        self._table: Tensor | None = None

    def get(
        self, rows: int, embeddings: Tensor, layer: tuple[Tensor, Tensor], compute: Compute
    ) -> Tensor | None:
        """Return the table (V, O), or None as long as computing it costs more than it saves.

        It is computed when more than V rows have been looked up. rows: the number of rows that this
        call will look up. embeddings (V, I), layer: the weight (O, I) and the bias that the table
        depends on. compute: function that returns the table. A table of more than LARGEST_TABLE
        numbers is not kept, nor is one computed with a gradient or within compiled code; such a
        table is computed if `rows` alone exceeds V.
        """
        words, numbers = len(embeddings), len(embeddings) * len(layer[0])
        changing = torch.is_grad_enabled() or torch.compiler.is_compiling()  # or exporting
        if changing or numbers > LARGEST_TABLE:
            return compute() if rows > words else None
        key = (_format.get(), *(part for each in (embeddings, *layer) for part in _state_of(each)))
        if key != self._key:
            self._key, self._rows, self._table = key, 0, None
        self._rows += rows
        if self._table is None and self._rows > words:
            self._table = compute()
        return self._table


def _state_of(tensor: Tensor) -> tuple[int, int]:
    """Return numbers that change when a tensor's values are replaced or modified in place.

    torch does not count the modifications of inference tensors, so these are not noticed.
    """
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _halve(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.detach().bfloat16(), None if bias is None else bias.detach().bfloat16()


@dataclass(frozen=True)
class _Packed:
    """A weight in 8 bits, in oneDNN's layout, and its float32 bias.

    scales, zeros: scale and zero point of each output; the zero points are 0.
    """

    weight: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None


def _pack(weight: Tensor, bias: Tensor | None) -> _Packed:
    """Quantise a weight (O, I) to 8 bits, symmetrically, with a scale per output."""
    values = weight.detach().float()
    scales = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    quantised = (values / scales[:, None]).round_().to(torch.int8)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    packed = torch.ops.onednn.qlinear_prepack(quantised, None)
    return _Packed(packed, scales, zeros, None if bias is None else bias.detach().float())


def _int8_product(rows: Tensor, packed: _Packed) -> Tensor:
    """Multiply rows (..., I), quantised to 8 bits by one scale and offset, by a packed weight."""
    low, high = (float(value) for value in rows.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    # Of 255 steps two are spared, for the offset and for rounding, so that no value wraps around.
    scale = (high - low) / 253 or 1.0
    zero = math.ceil(-low / scale)
    # The conversion cuts off, hence the half. Signed inputs took far longer (docs/libraries.md).
    quantised = torch.add(rows.new_tensor(zero + 0.5), rows, alpha=1 / scale).to(torch.uint8)
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        *(quantised, scale, zero, packed.weight, packed.scales, packed.zeros, packed.bias),
        *(1.0, 0, torch.float32, "none", [], ""),
    )
    return found


def pad_rows(rows: Tensor, smallest_step: int = 1) -> Tensor:
    """Pad rows (..., n, I) with zeros up to `padded_count`, for bfloat16 or 8 bits on a CPU.

    oneDNN compiles and caches a program for every shape, so memory use would keep growing if the
    number of rows differed from batch to batch. The results of the real rows, and products that sum
    over the rows, are bit-identical to those without padding. In float32 they would not be, and
    oneDNN caches nothing per shape, so rows for float32 products are returned unchanged.
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
    """Apply a function to tensors (B, ...); where `pad_rows` would pad, in blocks of 2^k images.

    oneDNN then compiles programs for few shapes, whatever the batch sizes, and no time is spent on
    padding. The results of the blocks are concatenated, so the result for an image must not depend
    on the others.
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
    half = half or _format.get() != "float32"
    return half and rows.device.type == "cpu"


def on_padded_rows(layer: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Apply a layer to rows (..., I), which are padded for the call only; see `pad_rows`."""
    flat = rows.flatten(0, -2)
    padded = pad_rows(flat)
    return layer(rows) if padded is flat else layer(padded)[: len(flat)].view(*rows.shape[:-1], -1)
