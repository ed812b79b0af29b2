"""The service under load, with and without batching: python -m benchmarks.serve.

The clients are threads of this process, so their cost is counted against the service.
"""

import io
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from benchmarks.end_to_end import captioner_with
from captioner.captioner import Captioner
from captioner.data.images import read_image
from captioner.decoding.options import DecodingKeywords
from captioner.serving.app import create_app
from captioner.serving.schemas import Limits
from captioner.serving.server import build_server, listen

WORDS = 12  # about the length of a Flickr8k or COCO caption with its end token
OPTIONS: DecodingKeywords = {"beam_size": 3, "min_length": WORDS, "max_length": WORDS}
BATCHES = (1, 32)
CPU = torch.device("cpu")  # the clock of the clients


def main() -> None:
    argv = measure.arguments(__doc__)
    device = measure.device_of(argv)
    rounds = 1 if argv.quick else 2
    images = draw(64)
    captioner = captioner_with("mobilenet_v2", "float32", device)
    scores = [each.score for each in captioner.caption([*map(read_image, images)], **OPTIONS)]
    rows = []
    for clients in (1, 64):
        rates: dict[int, float] = {}
        for batch_size in BATCHES:
            requests = images[: 16 if clients == 1 else None] * rounds
            taken, latencies, correct = load(captioner, requests, scores, batch_size, clients)
            rates[batch_size] = len(requests) / taken
            low, high = np.percentile(latencies, [50, 95])
            over = rates[batch_size] / rates[BATCHES[0]]
            answers = f"{correct} of {len(requests)}"
            rows.append([clients, batch_size, rates[batch_size], over, low, high, answers])
    print(f"### {len(images)} images of 640 x 480, beam 3, {WORDS} words, MobileNetV2\n")
    head = ["clients", "maximum batch", "captions/s", "over batches of 1"]
    print(measure.table([*head, "p50 s", "p95 s", "correct answers"], rows))
    print("\n### One client on a kept connection\n")
    asked = 30 if argv.quick else 150
    rows = [[delayed, *kept(captioner, images[0], asked, not delayed)] for delayed in (True, False)]
    ratios = [before / after for before, after in zip(rows[0][1:], rows[1][1:], strict=True)]
    print(
        measure.table(
            ["TCP delays", "health, ms", "greedy caption, ms"], [*rows, ["ratio", *ratios]]
        )
    )


def draw(count: int) -> list[bytes]:
    """Draw distinct JPEG files of smooth colours."""
    noise = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(noise.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def kept(captioner: Captioner, image: bytes, asked: int, nodelay: bool) -> tuple[float, float]:
    """Return the median milliseconds of /health and of a greedy caption, with or without delays."""
    with serving(captioner, Limits(), nodelay=nodelay) as address, httpx.Client() as client:
        query = f"method=greedy&min_length={WORDS}&max_length={WORDS}"
        caption = partial(client.post, f"{address}/api/caption?{query}", content=image)
        health = partial(client.get, f"{address}/health")
        medians = measure.side_by_side({"health": health, "caption": caption}, asked, CPU)
    return medians["health"] * 1e3, medians["caption"] * 1e3


@contextmanager
def serving(captioner: Captioner, limits: Limits, *, nodelay: bool = True) -> Iterator[str]:
    """Run the service in a thread; give its address."""
    listener = listen("127.0.0.1", 0)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
    server = build_server(create_app(captioner, limits), limits)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join()


def load(
    captioner: Captioner,
    images: Sequence[bytes],
    scores: Sequence[float],
    batch_size: int,
    clients: int,
) -> tuple[float, list[float], int]:
    """Return total seconds, seconds per request, and how many captions equal unbatched ones."""
    limits = Limits(batch_size=batch_size, timeout=300)
    connections = httpx.Limits(max_connections=clients)
    with (
        serving(captioner, limits) as address,
        httpx.Client(limits=connections, timeout=300) as client,
        ThreadPoolExecutor(clients) as pool,
    ):

        def ask(number: int) -> tuple[float, bool]:
            started = time.perf_counter()
            found = client.post(
                f"{address}/api/caption", params=dict[str, Any](OPTIONS), content=images[number]
            ).json()
            near = abs(found["score"] - scores[number % len(scores)]) < 1e-3
            return time.perf_counter() - started, near

        ask(0)  # warm-up
        started = time.perf_counter()
        done = list(pool.map(ask, range(len(images))))
        taken = time.perf_counter() - started
    return taken, [each for each, _ in done], sum(near for _, near in done)


if __name__ == "__main__":
    main()
