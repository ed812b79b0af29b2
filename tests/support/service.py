"""Running the service in a thread, a model for it, and images to send to it."""

import io
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import httpx
import numpy as np
from PIL import Image

from captioner.caption import Caption
from captioner.data.images import Transform
from captioner.decoding.options import DecodingOptions
from captioner.serving.app import create_app
from captioner.serving.schemas import Limits
from captioner.serving.server import build_server, listen


class Stub:
    """Captions an image by the colour of its first pixel and the options; may be held back."""

    def __init__(self):
        self.transform = Transform(4)
        self.model = SimpleNamespace(has_attention=True)
        self.busy, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.error = None

    def caption(self, images, *, batch_size, **options):
        assert batch_size == len(images)
        self.busy.set()
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return [self.describe(each, DecodingOptions(**options)) for each in images]

    @staticmethod
    def describe(image, options):
        words = (*map(str, image.getpixel((0, 0))), options.method)
        maps = np.full((4, 2, 3), 1 / 6, np.float32)
        log_probs = (-0.5, -1.0, -0.25, -2.0, -0.125)
        pairs = (("a", -1.0), ("", -2.0))[: options.word_alternatives]
        others = (pairs,) * 4 if pairs else ()
        best = Caption(" ".join(words), words, -3.875, log_probs, maps, (), image, -0.25, others)
        return replace(best, alternatives=(best,) * (options.num_captions - 1))


def png(colour=(10, 20, 30), size=(8, 8), **options):
    """The bytes of a PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", **options)
    return file.getvalue()


@contextmanager
def served(captioner, limits=None, access=None, collections=(), thumbnails=None, relations=None):
    """A client of a service that runs in a thread until the block ends."""
    limits = limits or Limits()
    listener = listen("127.0.0.1", 0)
    app = create_app(captioner, limits, access, collections, thumbnails, relations)
    server = build_server(app, limits)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        connections = httpx.Limits(max_connections=100)
        with httpx.Client(base_url=url, timeout=20, limits=connections) as client:
            client.server = server
            yield client
    finally:
        server.handle_exit(signal.SIGTERM, None)
        thread.join(20)
        assert not thread.is_alive()
