"""The largest of many numbers.

Shapes: R rows, N numbers per row, n numbers to find, C whole chunks per row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 64  # numbers


def top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of the values (R, N), largest first, and their indices (R, n).

    The result is that of `values.topk(count)`; the order of equal values is unspecified in both. On
    a CPU, torch copies every value beside its index before it selects; here, it does so only for
    the values of the chunks with the largest maxima, which contain the largest values.
    """
    chunks = values.shape[1] // CHUNK
    if values.device.type != "cpu" or chunks < 4 * count:
        found = values.topk(count)
        return found.values, found.indices
    whole = torch.unflatten(values[:, : chunks * CHUNK], 1, (chunks, CHUNK))  # (R, C, 64)
    chosen = whole.amax(-1).topk(count).indices  # (R, n)
    candidates = whole.gather(1, chosen[..., None].expand(-1, -1, CHUNK)).flatten(1)
    # The values after the last whole chunk are the last candidates, as if of a further chunk.
    candidates = torch.cat([candidates, values[:, chunks * CHUNK :]], dim=1)
    best, index = candidates.topk(count)
    chunk = F.pad(chosen, (0, 1), value=chunks).gather(1, index // CHUNK)
    return best, chunk * CHUNK + index % CHUNK
