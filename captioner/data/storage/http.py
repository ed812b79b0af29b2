"""Files on http servers, read from their beginning on; what they hold is not known here.

Nothing but http and https is opened, also where a server sends on to another place.
"""

import re
import ssl
import time
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PosixPath
from typing import TypeAlias
from urllib.error import HTTPError, URLError

from ...errors import InputError

TIMEOUT = 30  # seconds without a byte
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before each further try
CHUNK = 2**20
TROUBLE = (OSError, HTTPException, ValueError)

# Bytes, and what the server calls this state of the file; either may be unknown.
Version: TypeAlias = tuple[int | None, str]


class Unreachable(InputError):
    """A server does not give what it should, which is no fault of an image's."""


class Url(PosixPath):
    """A path that leads to a server, written as a URL: for pathlib two slashes are one."""

    def __str__(self) -> str:
        path = super().__str__()
        several = path.startswith("{")  # else what is called so further on is a name
        return re.sub(r"(https?):/+", r"\1://", path, count=0 if several else 1)


def as_url(path: Path | str) -> Url | None:
    """The path as a Url if it, or what its braces hold, begins with http:// or https://."""
    return Url(path) if re.match(r"\{*https?:/", str(path)) else None


class Download:
    """The content of a file on a server, to be read once, as from a pipe.

    A connection that is lost is opened again where it was, or, if the server cannot do that, gone
    through again up to there. version: which state of the file is wanted, None for any.
    """

    def __init__(self, url: Url, version: Version | None = None) -> None:
        self.url, self.version, self.position = url, version, 0
        self._response: HTTPResponse | None = None

    def __str__(self) -> str:
        return str(self.url)

    def read(self, count: int) -> bytes:
        """Up to so many bytes more, b"" at the end.

        Raises Unreachable where further tries do not help, or the file is no longer the same.
        """
        if self.version and self.position == self.version[0]:
            return b""
        reason = "it ends too early"
        for pause in (0, *PAUSES):
            if pause:  # sleeping for no time lets others go first
                time.sleep(pause)
            try:
                content = (self._response or self._connect()).read(count)
            except InputError:
                raise
            except TROUBLE as error:
                reason = _reason(error)
            else:
                self.position += len(content)
                if content or self.version is None or self.version[0] in (None, self.position):
                    return content
            self.close()
        tried = f"tried {len(PAUSES) + 1} times: {reason}"
        if self.version is None:
            raise Unreachable(f"{self} cannot be opened, {tried}; check the address")
        raise Unreachable(
            f"{self} cannot be read beyond byte {self.position:,}, {tried}; look at the server, or "
            "copy the file there again"
        )

    def close(self) -> None:
        """Let go of the connection; reading on opens another."""
        if self._response:
            self._response.close()
        self._response = None

    def _connect(self) -> HTTPResponse:
        headers = {"Range": f"bytes={self.position}-"} if self.position else {}
        request = urllib.request.Request(str(self), headers=headers)
        try:
            response = self._response = _opener().open(request, timeout=TIMEOUT)
        except HTTPError as error:
            error.close()
            if error.code in (408, 429) or error.code >= 500:  # it may pass
                raise
            raise Unreachable(
                f"{self} cannot be had: the server says {error.code} {error.reason}; "
                "check the address"
            ) from error
        except URLError as error:
            if not isinstance(error.reason, ssl.SSLCertVerificationError):
                raise
            raise Unreachable(
                f"{self} cannot be had: the server's certificate is not trusted "
                f"({error.reason.verify_message}); SSL_CERT_FILE may name a file of "
                "the authorities to trust"
            ) from error
        version = _version(response)
        if self.version not in (None, version):
            self.close()
            raise changed(self.url)
        self.version = version
        left = self.position if response.status != 206 else 0
        while left:
            left -= (passed := len(response.read(min(left, CHUNK))))
            if not passed:
                raise ConnectionError("it ends too early")
        return response


def changed(url: Url) -> Unreachable:
    """What is raised where a file is not what it was."""
    return Unreachable(f"{url} has changed since it was gone through; start again")


def _version(response: HTTPResponse) -> Version:
    told = response.headers
    whole = told.get("Content-Length", "")
    if response.status == 206:
        whole = told.get("Content-Range", "").rpartition("/")[2]
    state = told.get("ETag") or told.get("Last-Modified") or ""
    return int(whole) if whole.isdecimal() else None, state


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _opener() -> urllib.request.OpenerDirector:
    """As urllib's own, which opens files and ftp as well."""
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
