"""Exact search: the rows of a matrix with the largest dot products with a vector.

Shapes: N rows, E dimensions.
"""

import numpy as np
import torch

BLOCK = 2048  # rows converted to float32 at once: few enough for the cache of a core
# A tensor of up to this many elements is converted in the calling thread. torch's other threads
# would have to finish at the same time after every piece, which takes far longer on busy cores.
PIECE = 32768


def search(rows: np.ndarray, vector: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the `top` rows with the largest dot products, and the products.

    rows (N, E): float16 or float32; may be mapped from a file. vector (E,): float32. Both results
    have min(top, N) elements. The largest product comes first, and equal products are in the order
    of their rows. Products are float32. The search needs about 4 bytes of memory per row in
    addition to the rows. Raises ValueError if a product is not finite.
    """
    products = _products(rows, vector)
    if not np.isfinite(products).all():
        raise ValueError("a row contains values that are not finite numbers")
    top = min(top, len(rows))
    if top < 1:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    threshold = np.partition(products, -top)[-top]
    near = np.flatnonzero(products >= threshold)  # more than `top` if several equal the last
    order = np.lexsort((near, -products[near]))[:top]
    return near[order], products[near[order]]


def _products(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the dot products (N,), float32, of all rows with the vector.

    einsum computes every row in the same way, so that equal rows have equal products; in a
    matrix product, rounding depends on the row's position in the block.
    """
    products = np.empty(len(rows), np.float32)
    matrix, block = torch.from_numpy(rows), torch.empty(BLOCK, rows.shape[1])
    step = max(1, PIECE // rows.shape[1])
    for first in range(0, len(rows), BLOCK):
        part = matrix[first : first + BLOCK]
        for start in range(0, len(part), step):
            # torch converts half precision by vector instructions, NumPy 2.4 element by element.
            block[start : min(start + step, len(part))].copy_(part[start : start + step])
        target = products[first : first + len(part)]
        np.einsum("ne,e->n", block[: len(part)].numpy(), vector, out=target)
    return products
