"""Exact search: the rows of a matrix with the largest dot products with a vector.

Shapes: N rows, E dimensions.
"""

import numpy as np
import torch

BLOCK = 2048  # rows converted to float32 at once: few enough for the cache of a core
ERROR = 1e-5  # bound of the rounding error of a float32 product, relative to the vector's norm


def search(rows: np.ndarray, vector: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the `top` rows with the largest products, and their products.

    rows (N, E): float16, norm 1 or less; may be mapped from a file. vector (E,): float32, finite.
    Both results have min(top, N) elements, the largest product first, equal ones by row. Products
    are float32, rounded from float64, so that they depend neither on a row's place nor on threads.
    Memory beyond the rows is about 4 bytes per row. Raises ValueError if a row is not finite.
    """
    products = _products(rows, vector)
    if not np.isfinite(products).all():
        raise ValueError("a row contains values that are not finite numbers")
    top = min(top, len(rows))
    if top < 1:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    threshold = np.partition(products, -top)[-top] - 2 * ERROR * float(np.linalg.norm(vector))
    near = np.flatnonzero(products >= threshold)
    exact = np.empty(len(near), np.float32)
    for first in range(0, len(near), BLOCK):
        block = rows[near[first : first + BLOCK]].astype(np.float64)
        exact[first : first + BLOCK] = (block * vector).sum(1)
    order = np.lexsort((near, -exact))[:top]
    return near[order], exact[order]


def _products(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the product of each row with the vector (N,), float32, with rounding errors."""
    products = torch.empty(len(rows))
    matrix, factor = torch.from_numpy(rows), torch.from_numpy(vector)
    block = torch.empty(BLOCK, rows.shape[1])
    for first in range(0, len(rows), BLOCK):
        part = matrix[first : first + BLOCK]
        # torch converts half precision by vector instructions, NumPy 2.4 element by element.
        converted = block[: len(part)].copy_(part)
        torch.mv(converted, factor, out=products[first : first + len(part)])
    return products.numpy()
