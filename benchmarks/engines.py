"""Approximate engines beside exact search: python -m benchmarks.engines IMAGES.npy TEXTS.npy.

IMAGES.npy and TEXTS.npy are embeddings of real images and texts (`captioner encode`). The database
consists of the images' rows, repeated with noise; the queries are the texts' rows. The engines are
no requirement of the library: pip install faiss-cpu usearch lancedb; faiss is the one that
`captioner.retrieval.approximate` uses. Every engine runs in a process
of its own, so that its memory can be told apart.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from captioner.retrieval import approximate, exact

TOP = 10
BLOCK = 50_000  # rows drawn or added at once
NOISE = 0.5  # norm of the noise added to each unit row


@dataclass
class Engine:
    """The rows of a file in an engine.

    search(vector, top): row numbers. filtered(vector, top, allowed): the same among the rows that
    `allowed` (N,) marks; None if the engine cannot. add(rows): appends rows. remove(number):
    deletes a row; None if the engine cannot. path: the file or directory on disk.
    """

    search: Callable[[np.ndarray, int], np.ndarray]
    filtered: Callable[[np.ndarray, int, np.ndarray], np.ndarray] | None
    add: Callable[[np.ndarray], object]
    remove: Callable[[int], object] | None
    path: Path


def blocks(rows: np.ndarray) -> Any:
    """Yield the first number and the values, float32, of consecutive blocks of rows."""
    for first in range(0, len(rows), BLOCK):
        yield first, np.asarray(rows[first : first + BLOCK], np.float32)


def build_faiss(rows: np.ndarray, folder: Path, description: str) -> Engine:
    import faiss

    index = faiss.index_factory(rows.shape[1], description, faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(0).permutation(len(rows))[:100_000]
    index.train(np.asarray(rows[np.sort(chosen)], np.float32))
    for _, block in blocks(rows):
        index.add(block)
    is_graph = "HNSW" in description
    if is_graph:
        index.hnsw.efSearch = 64
    else:
        index.nprobe = 32
    path = folder / "faiss"
    faiss.write_index(index, str(path))

    def filtered(vector: np.ndarray, top: int, allowed: np.ndarray) -> np.ndarray:
        selector = faiss.IDSelectorBatch(np.flatnonzero(allowed))
        kind = faiss.SearchParametersHNSW if is_graph else faiss.SearchParametersIVF
        given = {"efSearch": 64} if is_graph else {"nprobe": 32}
        result: np.ndarray = index.search(vector[None], top, params=kind(sel=selector, **given))[1]
        return result[0]

    return Engine(
        lambda vector, top: index.search(vector[None], top)[1][0],
        filtered,
        index.add,
        None if is_graph else lambda number: index.remove_ids(np.array([number])),
        path,
    )


def build_clusters(rows: np.ndarray, folder: Path) -> Engine:
    clusters = approximate.build(rows)
    path = folder / "clusters"
    clusters.write(path)
    # Rows added later are compared exactly; after a row was removed, all are clustered again.
    return Engine(
        lambda vector, top: clusters.search(rows, vector, top)[0],
        None,
        lambda _: None,
        None,
        path,
    )


def build_usearch(rows: np.ndarray, folder: Path) -> Engine:
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16)
    for first, block in blocks(rows):
        index.add(np.arange(first, first + len(block)), block, threads=1)
    path = folder / "usearch"
    index.save(path)
    # A search result may lack rows that were removed; there are no filters in Python.
    return Engine(
        lambda vector, top: index.search(vector, top).keys,
        None,
        lambda more: index.add(np.arange(len(index), len(index) + len(more)), more, threads=1),
        index.remove,
        path,
    )


def build_lancedb(rows: np.ndarray, folder: Path) -> Engine:
    import lancedb
    import pyarrow as pa

    def batch(first: int, block: np.ndarray) -> Any:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
        numbers = pa.array(np.arange(first, first + len(block)))
        return pa.table({"row": numbers, "vector": vectors})

    database = lancedb.connect(folder / "lance")
    table = None
    for first, block in blocks(rows):
        if table is None:
            table = database.create_table("rows", batch(first, block))
        else:
            table.add(batch(first, block))
    assert table is not None
    table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_HNSW_SQ")

    def query(vector: np.ndarray, top: int) -> Any:
        return table.search(vector).distance_type("dot").limit(top).ef(64)

    def filtered(vector: np.ndarray, top: int, allowed: np.ndarray) -> np.ndarray:
        share = int(1 / allowed.mean())  # `allowed` marks the multiples of a number
        found = query(vector, top).where(f"row % {share} = 0", prefilter=True).to_arrow()
        return np.asarray(found["row"])

    return Engine(
        lambda vector, top: np.asarray(query(vector, top).to_arrow()["row"]),
        filtered,
        lambda more: table.add(batch(len(rows), more)),
        lambda number: table.delete(f"row = {number}"),
        folder / "lance",
    )


def build_exact(rows: np.ndarray, folder: Path) -> Engine:
    del folder
    return Engine(
        lambda vector, top: exact.search(rows, vector, top)[0],
        lambda vector, top, allowed: np.flatnonzero(allowed)[
            exact.search(rows[allowed], vector, top)[0]
        ],
        lambda _: None,
        lambda _: None,
        Path(),
    )


ENGINES: dict[str, Callable[[np.ndarray, Path], Engine]] = {
    "exact (captioner)": build_exact,
    "approximate (captioner, faiss IVF with 8 bits)": build_clusters,
    "faiss IVF4096, half precision": lambda rows, at: build_faiss(rows, at, "IVF4096,SQfp16"),
    "faiss HNSW32, half precision": lambda rows, at: build_faiss(rows, at, "HNSW32_SQfp16"),
    "usearch HNSW16, half precision": build_usearch,
    "LanceDB IVF_HNSW_SQ": build_lancedb,
}


def write_rows(path: Path, images: np.ndarray, count: int) -> None:
    """Write `count` unit rows, float16: the images' rows in turn, with noise added."""
    generator, size = np.random.default_rng(0), images.shape[1]
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (count, size))
    for first in range(0, count, BLOCK):
        numbers = np.arange(first, min(first + BLOCK, count))
        noise = generator.standard_normal((len(numbers), size), np.float32) * NOISE / size**0.5
        block = images[numbers % len(images)] + noise
        rows[numbers] = block / np.linalg.norm(block, axis=1, keepdims=True)
    rows.flush()


def size_on_disk(path: Path) -> int:
    """Return the size in bytes of a file or of all files in a directory; 0 for no path."""
    if path.is_dir() and path != Path():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else 0


def follow(name: str, rows_path: Path, queries: np.ndarray, folder: Path) -> None:
    """Print the row of one engine in the table."""
    rows = np.load(rows_path, mmap_mode="c")
    exactly = [exact.search(rows, query, TOP)[0] for query in queries[:200]]
    allowed = np.arange(len(rows)) % 10 == 0
    chosen = np.flatnonzero(allowed)
    among = [chosen[exact.search(rows[allowed], query, TOP)[0]] for query in queries[:50]]
    before, started, used = measure.resident(), time.perf_counter(), time.process_time()
    engine = ENGINES[name](rows, folder)
    built, cpu = time.perf_counter() - started, time.process_time() - used
    memory = measure.resident() - before
    times, used = [], time.process_time()
    for query in queries:
        started = time.perf_counter()
        engine.search(query, TOP)
        times.append(1e3 * (time.perf_counter() - started))
    each = 1e3 * (time.process_time() - used) / len(queries)
    recall = overlap([engine.search(query, TOP) for query in queries[:200]], exactly)
    with_filter = "no"
    if engine.filtered is not None:
        started = time.perf_counter()
        found = [engine.filtered(query, TOP, allowed) for query in queries[:50]]
        spent = 1e3 * (time.perf_counter() - started) / 50
        with_filter = f"{overlap(found, among):.2f}, {spent:.1f} ms"
    started = time.perf_counter()
    engine.add(np.asarray(rows[:1000], np.float32))
    added = time.perf_counter() - started
    removed = "no"
    if engine.remove is not None:
        started = time.perf_counter()
        engine.remove(5)
        removed = f"{1e3 * (time.perf_counter() - started):.1f} ms"
    p50, p99 = np.percentile(times, (50, 99))
    print(
        f"| {name} | {recall:.3f} | {built:.0f} ({cpu:.0f}) | {memory:.0f} | "
        f"{size_on_disk(engine.path) / 2**20:.0f} | {each:.2f} | {p50:.2f} | {p99:.2f} | "
        f"{with_filter} | {added:.2f} | {removed} |",
        flush=True,
    )


def overlap(found: list[np.ndarray], right: list[np.ndarray]) -> float:
    """Return the share of the right rows that were found."""
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, right, strict=True)]
    return sum(hits) / sum(map(len, right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help=".npy file of the embeddings of images")
    parser.add_argument("texts", type=Path, help=".npy file of the embeddings of texts")
    parser.add_argument("--count", type=int, default=1_000_000, help="rows")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    argv = parser.parse_args()
    queries = unit(np.load(argv.texts)[: argv.queries, : argv.dimensions])
    if argv.engine:
        with tempfile.TemporaryDirectory() as folder:
            follow(argv.engine, argv.rows, queries, Path(folder))
        return
    print(f"{argv.count:,} rows of {argv.dimensions} dimensions, {len(queries)} queries\n")
    print(
        "| engine | recall@10 | build s (CPU s) | memory MB | disk MB | CPU ms | p50 ms | p99 ms | "
        "one row in ten: recall, time | 1,000 rows added s | row removed |\n" + "| --- " * 11 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npy")
        images = unit(np.load(argv.images)[:, : argv.dimensions])
        write_rows(path, images, argv.count)
        run = [sys.executable, "-m", "benchmarks.engines", argv.images, argv.texts]
        options = ["--dimensions", str(argv.dimensions), "--queries", str(argv.queries)]
        one = {**os.environ, "OMP_NUM_THREADS": "1", "LANCE_CPU_THREADS": "1", "LANCE_LOG": "error"}
        for name in ENGINES:
            subprocess.run([*run, *options, "--rows", path, "--engine", name], check=False, env=one)


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale the rows to norm 1, float32."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float32)


if __name__ == "__main__":
    main()
