"""The service with 64 clients, beside the library in one thread: python -m benchmarks.service.

The model has the demo's size and random weights. The clients are threads of another process, which
use the same cores. Processor time is that of the process with service and library alone.
"""

import argparse
import http.client
import io
import random
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from statistics import median
from urllib.parse import urlencode, urlsplit

import numpy as np
import torch

from benchmarks import measure
from benchmarks.serve import serving
from captioner.captioner import Captioner
from captioner.data.demo.scenes import sample_scene
from captioner.data.demo.shapes import draw_background
from captioner.data.images import Transform
from captioner.decoding.options import DecodingKeywords
from captioner.models.captioning.build import build_model
from captioner.models.captioning.options import ModelOptions
from captioner.serving.schemas import Limits
from captioner.text.vocabulary import Vocabulary
from captioner.vision.encoders import build_encoder

WORDS, VOCABULARY, SIZE = 12, 60, 128  # words per caption; the demo's vocabulary and images
OPTIONS: DecodingKeywords = {"beam_size": 3, "min_length": WORDS, "max_length": WORDS}
BATCH = 16  # of the library
Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1024, help="number in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, default=Limits.batch_size, help="of the service")
    argv = parser.parse_args()
    # The process is forked here, before torch has started threads.
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        pool.submit(int).result()
        images = draw(64)
        captioner = build(argv.precision)
        limits = Limits(batch_size=argv.batch_size, timeout=300)
        found: dict[str, list[Times]] = {"library": [], "service": []}
        with serving(captioner, limits) as address:
            for number in range(argv.rounds + 1):
                count = argv.requests if number else 2 * argv.clients  # the first is a warm-up
                ways = {
                    "library": lambda n=count: call_library(captioner, images, n),
                    "service": lambda n=count: pool.submit(
                        ask, address, images, n, argv.clients
                    ).result(),
                }
                for name, way in ways.items():
                    cpu, started = time.process_time(), time.perf_counter()
                    latencies = way()
                    taken = {"images/s": count / (time.perf_counter() - started)}
                    taken["cpu"] = 1e3 * (time.process_time() - cpu) / count
                    low, high = 1e3 * np.percentile(latencies, [50, 99])
                    if number:
                        found[name].append(taken | {"p50": low, "p99": high})
    print_table(found)
    print(
        f"\n{argv.clients} clients, batches of at most {argv.batch_size} (library: {BATCH}), "
        f"precision {argv.precision}. {measure.machine(torch.device('cpu'))}"
    )


def print_table(found: dict[str, list[Times]]) -> None:
    medians = {
        name: {key: median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in found.items()
    }
    rows = [
        [
            name,
            taken["images/s"],
            measure.share(taken["images/s"], medians["library"]["images/s"]),
            *(taken[key] for key in ("p50", "p99", "cpu")),
        ]
        for name, taken in medians.items()
    ]
    head = ["", "images/s", "share of the library", "p50, ms", "p99, ms"]
    print(measure.table([*head, "ms of processor time per image"], rows))


def draw(count: int) -> list[bytes]:
    """Draw scenes of the demo as PNG files, as the demo stores them."""
    rng, files = random.Random(0), []
    for _ in range(count):
        image, scene, file = draw_background(rng), sample_scene(rng, "train"), io.BytesIO()
        for shape, stamp in zip(scene.shapes, scene.stamps, strict=True):
            image.paste(stamp, shape.box[:2], stamp)
        image.save(file, "PNG")
        files.append(file.getvalue())
    return files


def build(precision: str) -> Captioner:
    """Build a Show, Attend and Tell model of the demo's size with random weights."""
    torch.manual_seed(0)
    words = [f"word{i}" for i in range(VOCABULARY - 4)]
    model = build_model(build_encoder("small_cnn"), VOCABULARY, ModelOptions(attention=True))
    return Captioner(model, Vocabulary(words), Transform(SIZE), precision)


def call_library(captioner: Captioner, images: list[bytes], count: int) -> list[float]:
    """Caption `count` images in batches; return the seconds that each image's batch took."""
    latencies: list[float] = []
    for first in range(0, count, BATCH):
        batch = [images[i % len(images)] for i in range(first, min(first + BATCH, count))]
        started = time.perf_counter()
        captioner.caption(batch, batch_size=BATCH, **OPTIONS)
        latencies += [time.perf_counter() - started] * len(batch)
    return latencies


def ask(address: str, images: list[bytes], count: int, clients: int) -> list[float]:
    """Send `count` images over kept connections; return the seconds that each answer took."""
    query, local = f"/api/caption?{urlencode(OPTIONS)}", threading.local()

    def send(number: int) -> float:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=300)
        started = time.perf_counter()
        local.connection.request("POST", query, images[number % len(images)])
        answer = local.connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the service answered with status {answer.status}")
        return time.perf_counter() - started

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(send, range(count)))


if __name__ == "__main__":
    main()
