"""A loopback server of files that records requests and fails on request."""

import hashlib
import io
import tarfile
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Files(ThreadingHTTPServer):
    """Serves `files`, contents by name, over HTTP, or HTTPS with an ssl.SSLContext.

    requests: name and first byte of each request, in order. failures: by name, what happens to the
    next requests: a status and headers, or the number of bytes before the connection breaks, or
    None for a sound response. features: which of range requests, "length" (Content-Length) and
    "state" (ETag) the server supports.
    """

    def __init__(self, ssl_context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if ssl_context else "http"
        if ssl_context:
            self.socket = ssl_context.wrap_socket(self.socket, server_side=True)
        self.files, self.requests, self.failures = {}, [], {}
        self.features = {"ranges", "length", "state"}

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def serve_directory(self, directory: Path):
        """Serve the files in a directory and below it, by their relative names."""
        for path in directory.rglob("*"):
            if path.is_file():
                self.files[path.relative_to(directory).as_posix()] = path.read_bytes()

    def serve_tar(self, name, members):
        """Serve a tar file of members: pairs of a name and its content."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as archive:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        self.files[name] = tar.getvalue()

    def downloads(self, name):
        """The number of requests for a file from its beginning."""
        return self.requests.count((name, 0))


@contextmanager
def running(ssl_context=None):
    with Files(ssl_context) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        name, server = self.path[1:], self.server
        requested = self.headers["Range"]
        use_range = requested and "ranges" in server.features
        first = int(requested[len("bytes=") : -1]) if use_range else 0
        server.requests.append((name, first))
        failure = server.failures.get(name, []).pop(0) if server.failures.get(name) else None
        content = server.files.get(name)
        if content is None or isinstance(failure, tuple):
            self.send_failure(*(failure or (404, {})))
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if "length" in server.features:
            self.send_header("Content-Length", str(len(content) - first))
        if "state" in server.features:
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        with suppress(OSError):  # the client has closed the connection
            self.wfile.write(content[first:][:failure])
        self.close_connection = True

    def send_failure(self, status, headers):
        self.send_response(status)
        for key, value in {"Content-Length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
