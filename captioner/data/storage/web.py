"""Downloads of single images by URL, for callers that allow them.

The URL may come from a stranger: its download must not reach servers that only this machine can
reach, nor fill the memory, nor keep a thread busy. So the host of every URL, also after a redirect,
is resolved once, its addresses are checked, and one of them is connected to; a second look-up could
give another address. Proxies from the environment are not used, because a proxy would resolve the
name itself.
"""

import ipaddress
import logging
import re
import socket
import ssl
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, urljoin, urlsplit

from ..._version import __version__
from .location import UnreachableError

log = logging.getLogger(__name__)

# False refuses URLs; True allows public servers; "private" also allows those of private networks
# and of this machine.
Urls: TypeAlias = bool | Literal["private"]

MAX_BYTES = 64 * 2**20
MAX_REDIRECTS = 5
TIMEOUT = 20  # seconds without receiving a byte
DEADLINE = 60  # seconds for one image, with all redirects
CHUNK = 2**16
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits


@dataclass(frozen=True)
class WebImage:
    """The URL of an image, downloaded each time that it is loaded.

    url: http or https, without user name and password. allow_private: whether the server may have
    a private address, such as localhost.
    """

    url: str
    allow_private: bool = False

    def __str__(self) -> str:
        """Return the URL without user name, password, query and fragment, which may be secret."""
        shown = self.url.partition("?")[0].partition("#")[0]
        return re.sub(r"//[^/]*@", "//", shown, count=1)


def download(image: WebImage, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a URL.

    At most 5 redirects are followed, never from https to http. Raises UnreachableError if the URL
    or the target of a redirect is not a valid http or https URL or contains a user name or
    password, if a server's address is not public (unless allow_private), if the content has more
    than `max_bytes` bytes or takes more than 60 s, and if the download fails.
    """
    url, deadline = image.url, time.monotonic() + DEADLINE
    for _ in range(MAX_REDIRECTS + 1):
        parts = _parse(image, url)
        try:
            content, target = _get(image, parts, max_bytes, deadline)
        except ssl.SSLCertVerificationError as error:
            raise _failed(
                image,
                f"the server's certificate is not trusted ({error.verify_message})",
                "set SSL_CERT_FILE to a file with the certificate authorities to trust",
            ) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise _failed(image, str(error) or type(error).__name__) from error
        if target is None:
            log.debug("%s: %d bytes", image, len(content))
            return content
        url = urljoin(url, target)
        if parts.scheme == "https" and url.startswith("http:"):
            raise _failed(image, "it redirects from https to http")
    raise _failed(image, f"it redirects more than {MAX_REDIRECTS} times")


def _failed(image: WebImage, reason: str, advice: str = "check the URL") -> UnreachableError:
    return UnreachableError(f"{image}: download failed: {reason}; {advice}")


def _parse(image: WebImage, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise _failed(image, "the URL has no valid host and port") from None
    if parts.scheme not in PORTS:
        raise _failed(image, "only http and https URLs are supported")
    if not valid:
        raise _failed(image, "the URL has no valid host and port")
    if parts.username is not None or parts.password is not None:
        raise _failed(image, "the URL contains a user name or password", "remove it")
    if any(character <= " " or character == "\x7f" for character in url):
        problem = "the URL contains a space or a control character"
        raise _failed(image, problem, "write a space as %20")
    return parts


def _get(
    image: WebImage, parts: SplitResult, max_bytes: int, deadline: float
) -> tuple[bytes, str | None]:
    """Return the content of a URL and None, or b"" and the target of its redirect."""
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    connection = _connect(image, parts.scheme, host, port)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {
            "User-Agent": f"captioner/{__version__}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", path.encode("utf-8").decode("latin-1"), headers=headers)
        with connection.getresponse() as response:  # which has taken over the socket
            if response.status in REDIRECTS:
                return b"", response.headers.get("Location", "")
            if response.status != 200:
                raise _failed(image, f"HTTP {response.status} {response.reason}")
            return _receive(image, response, max_bytes, deadline), None
    finally:
        connection.close()


def _receive(image: WebImage, response: HTTPResponse, max_bytes: int, deadline: float) -> bytes:
    stated = response.headers.get("Content-Length", "")
    content = bytearray()
    while len(content) <= max_bytes and not (stated.isdecimal() and int(stated) > max_bytes):
        if time.monotonic() > deadline:
            raise _failed(image, f"it took more than {DEADLINE} s", "try again later")
        chunk = response.read1(CHUNK)
        if not chunk:
            if stated.isdecimal() and len(content) < int(stated):
                raise _failed(image, "the connection was closed early", "try again")
            return bytes(content)
        content += chunk
    raise _failed(image, f"it has more than {max_bytes:,} bytes", "choose a smaller image")


def _connect(image: WebImage, scheme: str, host: str, port: int) -> HTTPConnection:
    """Resolve a host once, check all its addresses, and connect to the first that accepts."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
    if not image.allow_private and not all(map(is_public, addresses)):
        raise _failed(
            image,
            f"{host} has an address that is not public",
            "pass allow_urls='private' to Python functions to allow it",
        )
    failure: OSError | None = None
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), TIMEOUT)
        except OSError as error:
            failure = error
            continue
        connection: HTTPConnection
        if scheme == "https":
            context = ssl.create_default_context()
            connection = HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
            try:
                connection.sock = context.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
        else:
            connection = HTTPConnection(host, port, timeout=TIMEOUT)
            connection.sock = plain
        connection.auto_open = 0  # it would look the name up again
        return connection
    raise failure or OSError(f"{host} has no address")


def is_public(address: str) -> bool:
    """Return whether an IP address is public: not private, local, multicast or reserved.

    An IPv4 address inside an IPv6 address (mapped, 6to4, NAT64) counts as that IPv4 address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast
