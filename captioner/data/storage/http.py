"""Downloads over HTTP that resume where a connection was lost.

Only http and https URLs are opened, even after a redirect.
"""

import ssl
import time
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import TypeAlias
from urllib.error import HTTPError, URLError

from .location import Location, UnreachableError

TIMEOUT = 30  # maximum time without receiving a byte, in seconds
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before each retry
CHUNK = 2**20  # bytes to read at once from a response
RETRIED = (OSError, HTTPException, ValueError)  # errors after which a retry may succeed

# Length in bytes, or None if unknown; ETag or Last-Modified, or "" if unknown.
Version: TypeAlias = tuple[int | None, str]


class Download:
    """The content of a file on a server, read once from beginning to end.

    A lost connection is reopened at the same byte; if the server does not support range requests,
    the file is requested from the beginning, and bytes that were already read are skipped.
    version: version of the file to read; None accepts the server's current version.
    """

    def __init__(self, location: Location, version: Version | None = None) -> None:
        self.location, self.version, self.position = location, version, 0
        self._response: HTTPResponse | None = None

    def __str__(self) -> str:
        return str(self.location)

    def read(self, count: int) -> bytes:
        """Return at most `count` more bytes, or b"" at the end.

        Raises UnreachableError if all attempts fail, a retry is pointless or the file has changed.
        """
        if self.version and self.position == self.version[0]:
            return b""
        reason = "the connection was closed early"
        for pause in (0, *PAUSES):
            if pause:  # sleep(0) would yield to other threads
                time.sleep(pause)
            try:
                content = (self._response or self._connect()).read(count)
            except UnreachableError:
                raise
            except RETRIED as error:
                reason = _reason(error)
            else:
                self.position += len(content)
                if content or self.version is None or self.version[0] in (None, self.position):
                    return content
            self.close()
        raise self._failed(f"{reason}, after {len(PAUSES) + 1} attempts")

    def close(self) -> None:
        """Close the connection; the next read opens another."""
        if self._response:
            self._response.close()
        self._response = None

    def _failed(self, reason: str) -> UnreachableError:
        if self.version is None:
            return UnreachableError(f"{self} cannot be opened: {reason}; check the URL")
        return UnreachableError(
            f"{self} cannot be read beyond byte {self.position:,}: {reason}; check the server, or "
            "upload the file to it again"
        )

    def _connect(self) -> HTTPResponse:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        request = urllib.request.Request(str(self), headers=headers)
        try:
            response: HTTPResponse = _opener().open(request, timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if error.code in (408, 429) or error.code >= 500:  # often temporary
                raise
            raise UnreachableError(
                f"{self}: download failed: HTTP {error.code} {error.reason}; check the URL"
            ) from error
        except URLError as error:
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            raise UnreachableError(
                f"{self}: download failed: the server's certificate is not trusted "
                f"({error.reason.verify_message}); set SSL_CERT_FILE to a file with the "
                "certificate authorities to trust"
            ) from error
        self._response = response
        version = _version(response.status, response.headers)
        if self.version not in (None, version):
            self.close()
            raise changed(self.location)
        self.version = version
        if response.status != 206:
            self._skip(response)
        return response

    def _skip(self, response: HTTPResponse) -> None:
        """Discard the bytes before the current position from a response that begins at byte 0."""
        left = self.position
        while left:
            left -= (skipped := len(response.read(min(left, CHUNK))))
            if not skipped:
                raise ConnectionError("the connection was closed early")


def changed(location: Location) -> UnreachableError:
    """Return the error for a file that has changed since it was indexed."""
    return UnreachableError(f"{location} has changed since it was indexed; run the command again")


def _version(status: int, headers: HTTPMessage) -> Version:
    length = headers.get("Content-Length", "")
    if status == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    state = headers.get("ETag") or headers.get("Last-Modified") or ""
    return int(length) if length.isdecimal() else None, state


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _opener() -> urllib.request.OpenerDirector:
    """Return urllib's default opener without its handlers for local files, FTP and data URLs."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
