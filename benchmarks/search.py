"""Time and memory of exact search in an index: python -m benchmarks.search.

The index has random unit rows, since neither depends on the values. Beside `Index.search`:
other sizes of blocks, and products by torch's threads, by NumPy and in half precision.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import measure
from captioner.index import Index
from captioner.retrieval import exact
from captioner.retrieval.index_writer import open_writer

BLOCK = 50_000  # rows drawn at once
CPU = torch.device("cpu")


def write_index(directory: Path, count: int, dimensions: int) -> None:
    """Write an index of random unit rows, with paths of about 60 characters."""
    generator = torch.Generator().manual_seed(0)
    with open_writer(directory, "RUN", "", dimensions) as writer:
        for first in range(0, count, BLOCK):
            numbers = range(first, min(first + BLOCK, count))
            rows = torch.randn(len(numbers), dimensions, generator=generator)
            rows /= rows.norm(dim=1, keepdim=True)
            entries = (
                {"image": f"/data/photos/2026/holidays/{i // 1000:05}/IMG_{i:08}.jpg"}
                for i in numbers
            )
            writer.append(rows.numpy(), entries)
        writer.finish([])


def search_blocks(rows: np.ndarray, vector: np.ndarray, size: int) -> None:
    """Search with another number of rows per block."""
    kept, exact.BLOCK = exact.BLOCK, size
    try:
        exact.search(rows, vector, 10)
    finally:
        exact.BLOCK = kept


def torch_products(rows: np.ndarray, vector: np.ndarray, size: int = 2048) -> torch.Tensor:
    """Convert and multiply whole blocks with torch's threads."""
    matrix, factor = torch.from_numpy(rows), torch.from_numpy(vector)
    return torch.cat(
        [torch.mv(matrix[i : i + size].float(), factor) for i in range(0, len(rows), size)]
    )


def numpy_products(rows: np.ndarray, vector: np.ndarray) -> list[np.ndarray]:
    blocks = range(0, len(rows), exact.BLOCK)
    return [np.asarray(rows[i : i + exact.BLOCK], np.float32) @ vector for i in blocks]


def compare(index: Index, rounds: int) -> None:
    """Print the median times of each way to compute all products, in turn.

    CPU time shows what a busy machine adds to the wall time.
    """
    rows, generator = index.rows, np.random.default_rng(1)
    vector = generator.standard_normal(int(rows.shape[1])).astype(np.float32)
    matrix, half = torch.from_numpy(rows), torch.from_numpy(vector).half()
    cases: dict[str, Callable[[], object]] = {"Index.search": partial(index.search, vector)}
    for size in (512, 8192):
        cases[f"blocks of {size:,}"] = partial(search_blocks, rows, vector, size)
    cases["products by torch's threads"] = lambda: torch_products(rows, vector)
    cases["products in half precision (inexact)"] = lambda: matrix @ half
    if len(rows) <= 100_000:
        cases["products by NumPy"] = lambda: numpy_products(rows, vector)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, work in cases.items():
            started = time.process_time()
            wall = measure.seconds(work, CPU)
            if number:  # the first is a warm-up
                times[name].append((wall, time.process_time() - started))
    for name, pairs in times.items():
        wall, cpu = (1e3 * sorted(column)[len(pairs) // 2] for column in zip(*pairs, strict=True))
        print(f"| {len(index):,} | {torch.get_num_threads()} | {name} | {wall:.1f} | {cpu:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[8_000, 1_000_000])
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    argv = parser.parse_args()
    imported = measure.resident()
    print(f"{measure.machine(CPU)}\n")
    print("| images | threads | | ms | CPU ms |\n| ---: | ---: | --- | ---: | ---: |")
    for count in argv.images:
        with tempfile.TemporaryDirectory() as name:
            write_index(Path(name, "index"), count, argv.dimensions)
            opened = measure.seconds(lambda: Index.open(Path(name, "index")), CPU)
            index = Index.open(Path(name, "index"))
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident size
            for _ in range(3):
                index.search(np.ones(argv.dimensions))
            beyond = measure.resident("VmHWM") - imported
            print(f"| {count:,} | | Index.open | {opened * 1e3:.1f} | |")
            print(f"| {count:,} | | memory beyond torch | {beyond:.0f} MB | |")
            for threads in argv.threads:
                torch.set_num_threads(threads)
                compare(index, argv.rounds)


if __name__ == "__main__":
    main()
