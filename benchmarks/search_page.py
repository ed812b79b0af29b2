"""The search page with many images in Chromium: python -m benchmarks.search_page RUN PHOTOS.

RUN is a checkpoint that links images and texts, PHOTOS a directory of a few hundred images. The
index has random vectors and links to the images, so that each row has its own thumbnail. The
service runs in a process of its own, as `captioner serve` starts it. Needs chromium.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch

from benchmarks import measure
from benchmarks.chromium import Browser, launch
from captioner.checkpoints import checkpoint
from captioner.data.image_paths import find_images
from captioner.linker import Linker
from captioner.retrieval.index_writer import open_writer

BLOCK = 10_000  # rows drawn at once
WINDOW = 1200, 850  # CSS pixels
LOADED = """(() => {
  const tiles = [...document.querySelectorAll("#hits li")], seen = tiles.filter((tile) => {
    const box = tile.getBoundingClientRect();
    return box.bottom > 0 && box.top < innerHeight;
  });
  return seen.length > 0 && seen.every((tile) => tile.querySelector("img")?.naturalWidth)
    && performance.now();
})()"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="RUN")
    parser.add_argument("photos", metavar="PHOTOS")
    parser.add_argument("--images", type=int, default=100_000, help="rows of the index")
    parser.add_argument("--scroll", type=int, default=10_000, help="results to scroll through")
    parser.add_argument("--query", default="", help="query of the results [all images in order]")
    argv = parser.parse_args()
    print(f"{measure.machine(torch.device('cpu'))}\n")
    with tempfile.TemporaryDirectory() as name:
        index = Path(name, "many.index")
        write_index(index, argv.checkpoint, find_images([argv.photos]), argv.images)
        with serving(index, argv.checkpoint, Path(name, "thumbnails")) as (process, address):
            report_searches(address, argv.images)
            with launch() as browser:
                for case in ("no thumbnail stored", "thumbnails stored"):
                    report_opening(browser, address, argv.query, case)
                report_scrolling(browser, address, argv.query, argv.scroll)
            made = list(Path(name, "thumbnails").rglob("*.jpg"))
            size = sum(path.stat().st_size for path in made)
            print(f"\nthumbnails: {len(made):,}, {size / 1e6:.1f} MB")
            print(f"service: {memory(process.pid, 'VmHWM'):.0f} MB at its peak")


def write_index(directory: Path, run: Path, photos: list[str], count: int) -> None:
    """Write an index of random unit vectors and links to the photos."""
    linker = Linker.from_pretrained(run, "cpu")
    generator = np.random.default_rng(0)
    links = directory.parent / "links"
    with open_writer(
        directory, str(run.resolve()), checkpoint.identity(run), linker.model.dimensions
    ) as writer:
        for first in range(0, count, BLOCK):
            numbers = range(first, min(first + BLOCK, count))
            rows = generator.standard_normal((len(numbers), linker.model.dimensions))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            folder = links / f"{first // BLOCK:03}"
            folder.mkdir(parents=True)
            places = [folder / f"IMG_{number:08}.jpg" for number in numbers]
            for number, place in zip(numbers, places, strict=True):
                place.symlink_to(os.path.abspath(photos[number % len(photos)]))
            writer.append(rows, ({"image": str(place)} for place in places))
        writer.finish([])


@contextmanager
def serving(
    index: Path, run: Path, thumbnails: Path
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command; yield its process and address."""
    command = [sys.executable, "-m", "captioner", "serve", str(run), "--index", str(index)]
    command += ["--port", "0", "--thumbnails", str(thumbnails), "--device", "cpu"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        print(f"start of the service: {time.perf_counter() - started:.1f} s")
        try:
            yield process, found[0]
        finally:
            process.terminate()


def report_searches(address: str, count: int) -> None:
    """Print the median time of a page of hits near the best one and far from it."""
    print("\n| request | ms |\n| --- | ---: |")
    with httpx.Client(base_url=address, timeout=60) as client:
        word = client.get("/api/search").json()["hits"][0]["term"]
        for query in ("", word):
            for offset in (0, count // 2):
                times = []
                for _ in range(15):
                    started = time.perf_counter()
                    given: dict[str, str | int] = {"query": query, "offset": offset}
                    client.get("/api/search", params=given).raise_for_status()
                    times.append(time.perf_counter() - started)
                what = "hits of a query" if query else "images without a query"
                median = 1e3 * sorted(times)[len(times) // 2]
                print(f"| 60 {what}, from {offset:,} | {median:.1f} |")


def report_opening(browser: Browser, address: str, query: str, case: str) -> None:
    """Print when the page is painted, and when the first thumbnails are there."""
    page = browser.open(f"{address}/?query={query}", *WINDOW)
    shown = page.wait(LOADED)
    paints = page.evaluate(
        "Object.fromEntries(performance.getEntriesByType('paint')"
        ".map((entry) => [entry.name, entry.startTime]))"
    )
    print(
        f"\n{case}: first paint {paints['first-paint']:.0f} ms, first contentful paint "
        f"{paints['first-contentful-paint']:.0f} ms, all visible thumbnails {shown:.0f} ms"
    )
    page.close()


def report_scrolling(browser: Browser, address: str, query: str, count: int) -> None:
    """Scroll through results by windows; print the memory at steps, after garbage collection."""
    page = browser.open_usual(f"{address}/?query={query}", *WINDOW)
    page.wait(LOADED)
    page.send("Performance.enable")
    head = (
        "results passed",
        "JS heap, MB",
        "DOM nodes",
        "tiles",
        "renderer, MB",
        "all, MB",
        "ms per window",
    )
    print(f"\n| {' | '.join(head)} |")
    print(f"|{' ---: |' * len(head)}")
    times: list[float] = []
    marks = [count * step // 5 for step in range(6)]
    while marks:
        passed = page.evaluate("Math.max(0, -hits.getBoundingClientRect().top / height * columns)")
        if passed >= marks[0]:
            page.send("HeapProfiler.collectGarbage")
            found = page.send("Performance.getMetrics")["metrics"]
            metrics = {each["name"]: each["value"] for each in found}
            tiles = page.evaluate("document.querySelectorAll('#hits li').length")
            used = browser_memory(browser)
            median = f"{sorted(times)[len(times) // 2]:.0f}" if times else "-"
            print(
                f"| {passed:,.0f} | {metrics['JSHeapUsedSize'] / 1e6:.2f} | "
                f"{metrics['Nodes']:,.0f} | {tiles} | {used[0]:.0f} | {used[1]:.0f} | {median} |",
                flush=True,
            )
            marks.pop(0)
            times.clear()
        started = time.perf_counter()
        page.evaluate("scrollBy(0, innerHeight - 200)")
        page.evaluate("new Promise((go) => requestAnimationFrame(() => setTimeout(go)))")
        page.wait(LOADED)
        times.append(1e3 * (time.perf_counter() - started))


def browser_memory(browser: Browser) -> tuple[float, float]:
    """Return the megabytes of the largest process that draws pages, and of all processes."""
    found = browser.send("SystemInfo.getProcessInfo")["processInfo"]
    used = [(each["type"], memory(each["id"], "RssAnon")) for each in found]
    return max(size for kind, size in used if kind == "renderer"), sum(size for _, size in used)


def memory(process: int, name: str) -> float:
    """Return a number of /proc/PID/status in megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
