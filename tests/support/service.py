"""Running the service in a thread, and images to send to it."""

import io
import signal
import threading
from contextlib import contextmanager

import httpx
from PIL import Image

from captioner.serving.app import create_app
from captioner.serving.schemas import Limits
from captioner.serving.server import build_server, listen


def png(colour=(10, 20, 30), size=(8, 8), **options):
    """The bytes of a PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG", **options)
    return file.getvalue()


@contextmanager
def served(captioner, limits=None):
    """A client of a service that runs in a thread until the block ends."""
    limits = limits or Limits()
    listener = listen("127.0.0.1", 0)
    server = build_server(create_app(captioner, limits), limits)
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
