"""The service under load, alone and beside half-sent requests: python -m benchmarks.half_sent.

The 64 clients are threads of this process, so their cost is counted against the service. Each sends
an image, waits for its caption and sends the next one. A half-sent request states the length of an
image, sends one byte of it and waits; when the service refuses it or cuts it off, it is sent anew.
"""

import argparse
import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import torch

from benchmarks import measure
from benchmarks.end_to_end import captioner_with
from benchmarks.serve import OPTIONS, draw, serving
from captioner.data.images import read_image
from captioner.serving.schemas import Limits

CLIENTS, HALF_SENT = 64, 128
HALF = b"POST /api/caption HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nx"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="duration of each case [60]")
    seconds = parser.parse_args().seconds
    images = draw(CLIENTS)
    captioner = captioner_with("mobilenet_v2", "float32", torch.device("cpu"))
    scores = [each.score for each in captioner.caption([*map(read_image, images)], **OPTIONS)]
    rows = []
    for count in (0, HALF_SENT):
        with serving(captioner, Limits()) as address, half_sent(address, count) as sent:
            answers, health = load(address, images, scores, seconds)
        right = sum(correct for _, correct in answers)
        times = [np.percentile([taken for taken, _ in answers], each) for each in (50, 99)]
        probes = [np.percentile(health, each) * 1e3 for each in (50, 99)]
        rows.append([f"{count} ({len(sent)})", f"{right} of {len(answers)}", *times, *probes])
    print(f"### {CLIENTS} clients for {seconds:g} s, MobileNetV2, beam 3, images of 640 x 480\n")
    head = ["half-sent at a time (in all)", "correct answers", "p50 s", "p99 s"]
    print(measure.table([*head, "health p50 ms", "health p99 ms"], rows))


def load(
    address: str, images: Sequence[bytes], scores: Sequence[float], seconds: float
) -> tuple[list[tuple[float, bool]], list[float]]:
    """Send images for a while; return seconds and correctness of each, and seconds of /health."""
    end = time.perf_counter() + seconds

    def captions(number: int) -> list[tuple[float, bool]]:
        answers = []
        with httpx.Client(timeout=300, verify=False) as client:
            while (started := time.perf_counter()) < end:
                url = f"{address}/api/caption"
                reply = client.post(url, params=dict[str, Any](OPTIONS), content=images[number])
                score = reply.json()["score"] if reply.status_code == 200 else np.nan
                taken = time.perf_counter() - started
                answers.append((taken, bool(abs(score - scores[number]) < 1e-3)))
        return answers

    def health() -> list[float]:
        times = []
        while (started := time.perf_counter()) < end:
            with httpx.Client(timeout=300, verify=False) as client:  # a new connection
                client.get(f"{address}/health").raise_for_status()
            times.append(time.perf_counter() - started)
            time.sleep(0.2)
        return times

    with ThreadPoolExecutor(len(images) + 1) as pool:
        probes = pool.submit(health)
        answers = [each for found in pool.map(captions, range(len(images))) for each in found]
        return answers, probes.result()


@contextmanager
def half_sent(address: str, count: int) -> Iterator[list[float]]:
    """Keep `count` half-sent requests open; give the list of when each was sent."""
    url, sent, stop = urlsplit(address), list[float](), threading.Event()

    async def keep_one() -> None:
        while not stop.is_set():
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            sent.append(time.perf_counter())
            writer.write(HALF)
            waiting = asyncio.create_task(reader.read(1000))
            while not (stop.is_set() or waiting.done()):
                await asyncio.wait([waiting], timeout=0.2)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            writer.close()

    async def keep_all() -> None:
        await asyncio.gather(*(keep_one() for _ in range(count)))

    thread = threading.Thread(target=asyncio.run, args=(keep_all(),))
    thread.start()
    try:
        while len(sent) < count:
            time.sleep(0.01)
        yield sent
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
