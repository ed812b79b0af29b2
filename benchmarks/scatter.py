"""The projection page with 20,000 points in Chromium: python -m benchmarks.scatter INDEX.

INDEX was written with a model trained with --system spatial. The page shows an index of composites:
the left halves of its images beside the right halves of others, with links to the images. While the
view changes in every frame, the times of the frames are taken from requestAnimationFrame. The
service runs in a process of its own, as `captioner serve` starts it. Needs chromium.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import torch

from benchmarks import measure
from benchmarks.chromium import Page, launch
from benchmarks.search_page import serving
from captioner import Index
from captioner.retrieval.index_files import open_files
from captioner.retrieval.index_writer import open_writer
from captioner.retrieval.region_rows import pack, unpack

BLOCK = 500  # rows written at once
WINDOW = 1200, 850  # CSS pixels
SECONDS = 6
MOVES = {  # what changes in frame number n
    "zoom in and out": "zoomBy(n % 120 < 60 ? 1.04 : 1 / 1.04, 500, 300)",
    "pan, zoom 3": "n || zoomBy(3), panBy(n % 180 < 90 ? 8 : -8, n % 90 < 45 ? 4 : -4)",
    "pan, all selected": "n || (select(() => true), zoomBy(1.5)), panBy(n % 120 < 60 ? 6 : -6, 0)",
    "move the pointer": "point(nearest(400 + 200 * Math.cos(n / 20), 300, 14))",
}
LASSO = """(() => {
  const turn = (i) => [550 + 300 * Math.cos(i / 48), 270 + 200 * Math.sin(i / 48)];
  const corners = Array.from({ length: 300 }, (_, i) => turn(i)), started = performance.now();
  select(within(corners));
  return [selectedCount, performance.now() - started];
})()"""
FRAMES = """new Promise((done) => {
  fit();
  const times = [], drawn = [], begin = performance.now();
  let n = 0;
  requestAnimationFrame(function frame(now) {
    times.push(now);
    %s;
    const started = performance.now();
    if (scheduled) { cancelAnimationFrame(scheduled); draw(); }
    drawn.push(performance.now() - started);
    n++;
    if (performance.now() - begin < %d) requestAnimationFrame(frame);
    else done({ times, drawn });
  });
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path, metavar="INDEX")
    parser.add_argument("--points", type=int, default=20_000, help="rows of the index")
    parser.add_argument("--labels", nargs="+", default=["red", "green", "blue", "yellow"])
    argv = parser.parse_args()
    print(f"{measure.machine(torch.device('cpu'))}; load {os.getloadavg()[0]:.0f}\n")
    index = Index.open(argv.index)
    with tempfile.TemporaryDirectory() as name:
        many = Path(name, "many.index")
        write_index(many, argv.index, argv.points)
        run = Path(index.checkpoint)
        with serving(many, run, Path(name, "thumbnails")) as (_, address):
            report_requests(address, argv.labels)
            with launch() as browser:
                for ratio in (1, 2):
                    words = "&".join(f"labels={word}" for word in argv.labels)
                    page = browser.open(f"{address}/projection?{words}", *WINDOW, ratio=ratio)
                    page.wait("plot && plot.row.length && !before")
                    report_frames(page, ratio)
                    page.close()


def write_index(directory: Path, source: Path, count: int) -> None:
    """Write an index of composites of the images of another one, and links to its images."""
    files, generator = open_files(source), np.random.default_rng(0)
    manifest, shape = files.manifest, files.manifest.region_shape
    assert files.regions is not None
    assert shape is not None
    images = [entry["image"] for entry in files.entries(range(len(files.rows)))]
    (directory.parent / "links").mkdir()
    with open_writer(
        directory, manifest.checkpoint, manifest.weights, manifest.dimensions, regions=shape
    ) as writer:
        for first in range(0, count, BLOCK):
            number = min(BLOCK, count - first)
            left, right = generator.integers(0, len(images), (2, number))
            regions = unpack(files.regions[left], shape).clone()
            middle = shape.width // 2
            regions[..., middle:] = unpack(files.regions[right], shape)[..., middle:]
            rows = regions.mean((1, 3, 4)).numpy()
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            places = [directory.parent / "links" / f"{first + i:06}.png" for i in range(number)]
            for place, image in zip(places, left, strict=True):
                place.symlink_to(images[image])
            writer.append(rows, [{"image": str(place)} for place in places], pack(regions))
        writer.finish([])


def report_requests(address: str, labels: list[str]) -> None:
    """Print the times of the first and of later requests for positions and painted searches."""
    painting = {"layers": [{"word": labels[0], "grid": [[1, 0]]}]}
    print("\n| request | first, ms | again, ms | KB |\n| --- | ---: | ---: | ---: |")
    with httpx.Client(base_url=address, timeout=60) as client:
        for what, send in (
            ("painted search", lambda: client.post("/api/paint", json=painting)),
            (
                "positions among labels",
                lambda: client.get("/api/projection", params={"labels": labels}),
            ),
            (
                "one label and diversity",
                lambda: client.get(
                    "/api/projection", params={"labels": labels[0], "diversity": True}
                ),
            ),
            ("principal components", lambda: client.get("/api/projection?method=pca")),
            ("500 names", lambda: client.get("/api/rows", params={"rows": list(range(500))})),
        ):
            times = []
            for _ in range(6):
                started = time.perf_counter()
                content = send().raise_for_status().content
                times.append(1e3 * (time.perf_counter() - started))
            again = float(np.median(times[1:]))
            print(f"| {what} | {times[0]:.0f} | {again:.0f} | {len(content) / 1e3:.0f} |")


def report_frames(page: Page, ratio: int) -> None:
    """Print the intervals between frames, and the time of drawing, while the view changes."""
    points, visible = page.evaluate("[plot.row.length, [canvas.width, canvas.height].join(' x ')]")
    load = f"{os.getloadavg()[0]:.0f}"
    print(f"\n{points:,} points, {visible} pixels ({ratio} per CSS pixel), load {load}\n")
    head = "| while | frames/s | median, ms | 95 %, ms | drawing, ms | CPU of all of Chromium, ms |"
    print(f"{head}\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for what, move in MOVES.items():
        used = processor_time(page)
        found = page.evaluate(FRAMES % (move, 1000 * SECONDS))
        used = processor_time(page) - used
        intervals = np.diff(found["times"])
        print(
            f"| {what} | {1000 / intervals.mean():.0f} | {np.median(intervals):.1f} | "
            f"{np.quantile(intervals, 0.95):.1f} | {np.median(found['drawn']):.1f} | "
            f"{1e3 * used / len(intervals):.1f} |",
            flush=True,
        )
    page.evaluate("select(() => false)")
    lasso = page.evaluate(LASSO)
    print(f"\na lasso of 300 corners: {lasso[0]:,} points in {lasso[1]:.0f} ms")


def processor_time(page: Page) -> float:
    """Return the seconds of processor time that all processes of Chromium have used."""
    found = page.browser.send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(each["cpuTime"] for each in found)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
