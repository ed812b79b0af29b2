"""Access control of the service: allowed host names, cross-site requests and a token.

FastAPI is imported inside functions because the rest of the library works without it.
"""

import ipaddress
import secrets
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
TOKEN_LENGTH = 16
ANY = "*"


@dataclass(frozen=True)
class Access:
    """The rules that decide which requests the service accepts.

    hosts: host names and addresses that requests may use for the service, in addition to localhost,
    127.0.0.1 and ::1; "*" allows any. Other hosts are refused, because a web page could otherwise
    reach a local service under the page's host name (DNS rebinding). token: bearer token that
    requests for /api/... and /metrics must send, at least 16 printable ASCII characters without
    spaces; None requires no token. Raises InputError for a token that is too short or contains
    other characters.
    """

    hosts: tuple[str, ...] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        names = {ANY if host == ANY else host_name(host) for host in (*LOOPBACK, *self.hosts)}
        object.__setattr__(self, "hosts", tuple(sorted(names - {""})))
        if self.token is None:
            return
        printable = self.token.isascii() and self.token.isprintable() and " " not in self.token
        if len(self.token) < TOKEN_LENGTH or not printable:
            raise InputError(
                f"a token must consist of at least {TOKEN_LENGTH} printable ASCII characters other "
                "than spaces; create one with: openssl rand -hex 32"
            )

    def refuse(self, method: str, headers: Mapping[str, str]) -> tuple[HTTPStatus, str] | None:
        """Return the status and reason if a request's host or origin is refused; None otherwise."""
        host = headers.get("host", "")
        if ANY not in self.hosts and host_name(host) not in self.hosts:
            advice = "if it is a name of this service, pass it with --allowed-hosts"
            message = f"the host name {host[:100]!r} is not allowed; {advice}"
            return HTTPStatus.MISDIRECTED_REQUEST, message
        if method not in SAFE_METHODS and is_cross_site(host, headers):
            message = (
                "cross-site requests are refused; send the request from a page of this service"
            )
            return HTTPStatus.FORBIDDEN, message
        return None


def host_name(host: str) -> str:
    """Return the name or address in a Host header, in lower case without the port; "" if invalid.

    An IPv6 address without brackets and without a port is accepted as well.
    """
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_cross_site(host: str, headers: Mapping[str, str]) -> bool:
    """Return whether a browser sent the request on behalf of a page of another site.

    Only browsers send the headers Sec-Fetch-Site and Origin, and pages cannot set them.
    Sec-Fetch-Site is correct even behind a proxy that changes the host; over plain HTTP, browsers
    send only Origin.
    """
    if "sec-fetch-site" in headers:
        return headers["sec-fetch-site"] not in ("same-origin", "none")
    return "origin" in headers and headers["origin"].partition("://")[2] != host


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a service that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> str:
    """Return the token in a text file, without white space at its ends.

    Raises InputError if the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(
            f"the token file {path} cannot be read: {reason}; pass --token-file with another file"
        ) from error


def token_check(
    token: str | None, exempt: Callable[[Any], bool] = lambda _: False
) -> Sequence[Any]:
    """Build the FastAPI dependencies of routes that require the token; empty without a token.

    exempt: function that returns whether a request is accepted without the token.
    """
    from fastapi import Depends, HTTPException, Request
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

    if token is None:
        return ()
    scheme = HTTPBearer(auto_error=False, description="the token in the file given by --token-file")

    def check(
        request: Request,
        given: HTTPAuthorizationCredentials | None = Depends(scheme),  # noqa: B008
    ) -> None:
        sent = given.credentials if given else ""
        if not secrets.compare_digest(sent.encode(), token.encode()) and not exempt(request):
            what = "the token is wrong" if sent else "a token is required"
            message = f"{what}; send the header Authorization: Bearer TOKEN"
            raise HTTPException(401, message, {"WWW-Authenticate": "Bearer"})

    return (Depends(check),)


class Guard:
    """ASGI middleware that responds with an error to requests that `Access.refuse` rejects."""

    def __init__(self, app: Any, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        from starlette.datastructures import Headers
        from starlette.responses import JSONResponse

        app = self.app
        if scope["type"] == "http":
            refusal = self.access.refuse(scope["method"], Headers(scope=scope))
            if refusal:
                status, message = refusal
                app = JSONResponse({"detail": message}, status)
        await app(scope, receive, send)
