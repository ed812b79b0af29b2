"""A server of files on loopback that counts what it is asked for, and fails as it is told."""

import hashlib
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Files(ThreadingHTTPServer):
    """files: by name; asked: name and first byte of each request, in order.

    fail: by name what becomes of its next requests: a status, or how many bytes come before the
    connection breaks. tell: which of "ranges", "length" and "state" the server can.
    secured: an ssl.SSLContext, with which it speaks https.
    """

    def __init__(self, secured=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.secured = secured
        if secured:
            self.socket = secured.wrap_socket(self.socket, server_side=True)
        self.files, self.asked, self.fail = {}, [], {}
        self.tell = {"ranges", "length", "state"}

    @property
    def url(self):
        return f"http{'s' if self.secured else ''}://127.0.0.1:{self.server_port}"

    def serve(self, directory: Path):
        """The files in a directory and below it, by their names from there on."""
        for path in directory.rglob("*"):
            if path.is_file():
                self.files[path.relative_to(directory).as_posix()] = path.read_bytes()
        return self

    def opened(self, name):
        """How often a file was asked for from its beginning."""
        return self.asked.count((name, 0))


@contextmanager
def running(secured=None):
    with Files(secured) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        name, told = self.path[1:], self.server
        wanted = self.headers["Range"]
        first = int(wanted[len("bytes=") : -1]) if wanted and "ranges" in told.tell else 0
        told.asked.append((name, first))
        failure = told.fail.get(name, []).pop(0) if told.fail.get(name) else None
        content = told.files.get(name)
        if content is None or isinstance(failure, tuple):
            status, headers = failure or (404, {})
            self.send_response(status)
            for key, value in {"Content-Length": "0", **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if "length" in told.tell:
            self.send_header("Content-Length", str(len(content) - first))
        if "state" in told.tell:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        with suppress(OSError):  # nobody listens any more
            self.wfile.write(content[first:][:failure])
        self.close_connection = True
