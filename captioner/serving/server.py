"""`captioner serve`: listen, serve and shut down gracefully."""

import math
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.runs import CHECKPOINTS
from ..console import note, say
from ..devices import RuntimeOptions
from ..errors import InputError
from ..options import check_bounds, flag_of, option
from ..pretrained import CAPTIONER, default_model
from .access import Access, is_loopback, read_token
from .connections import BACKLOG, build_protocol, most_connections
from .schemas import Limits

MEGABYTE = 10**6
# Names of the options that apply only to captions, and only to search.
CAPTION_OPTIONS = ("precision", "compile", "batch_size", "max_beam_size", "max_words")
SEARCH_OPTIONS = ("thumbnails", "max_thumbnails")

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI


@dataclass(frozen=True)
class ServeOptions:
    """The address to listen on, and who may use the service."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all")
    port: int = option(8000, "port to listen on; 0: any free port", at_least=0, at_most=2**16 - 1)
    allowed_hosts: tuple[str, ...] = option(
        (), "additional host names accepted in requests; '*': any"
    )
    token_file: Path | None = option(None, "file with the token that requests must send")
    public: bool = option(False, "serve other machines without a token")

    def __post_init__(self) -> None:
        check_bounds(self)
        if not (is_loopback(self.host) or self.token_file or self.public):
            raise InputError(
                f"other machines can reach --host {self.host}; require a token with --token-file, "
                "or pass --public to serve them without a token"
            )

    @property
    def access(self) -> Access:
        """The access rules; raises InputError if the token cannot be used."""
        hosts = (*self.allowed_hosts, self.host)
        return Access(hosts, read_token(self.token_file) if self.token_file else None)


@dataclass(frozen=True)
class ThumbnailOptions:
    """Where thumbnails are stored, and how much space they may take."""

    thumbnails: Path = option(CHECKPOINTS / ".cache" / "thumbnails", "directory of thumbnails")
    max_thumbnails: int = option(1000, "maximum total size of thumbnails in MB", at_least=1)

    def __post_init__(self) -> None:
        check_bounds(self)


def serve(
    runs: Sequence[Path],
    options: ServeOptions,
    limits: Limits,
    runtime: RuntimeOptions,
    indexes: Sequence[Path] = (),
    thumbnails: ThumbnailOptions | None = None,
    given: Collection[str] = (),
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in progress and return.

    runs, indexes: as in `load_models`; without any, the captioner that comes with the package is
    served. A second signal abandons the requests in progress. given: names of the options that the
    user passed. Raises InputError if the extra `serve` is not installed, the address cannot be
    used, the token file cannot be used, a checkpoint or an index cannot be loaded, or an option in
    `given` has no effect.
    """
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"captioner serve needs {error.name}; run pip install 'captioner[serve]'"
        ) from error
    from .app import create_app
    from .loading import load_models
    from .thumbnails import ThumbnailStore

    check_effect(given, SEARCH_OPTIONS if not indexes else (), "an index; pass one with --index")
    runs = runs if runs or indexes else [default_model(CAPTIONER)]
    access, thumbnails = options.access, thumbnails or ThumbnailOptions()
    captioner, collections, relations = load_models(runs, indexes, runtime)
    check_effect(given, CAPTION_OPTIONS if captioner is None else (), "a captioner; pass its run")
    listener = listen(options.host, options.port)
    store = ThumbnailStore(thumbnails.thumbnails, thumbnails.max_thumbnails * MEGABYTE)
    thumbnail_store = store if collections else None
    app = create_app(captioner, limits, access, collections, thumbnail_store, relations)
    server = build_server(app, limits)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    names = ", ".join([*([" + ".join(map(str, runs))] * bool(runs)), *map(str, indexes)])
    say(f"serving {names} at {url} (press Ctrl-C to stop)")
    server.run([listener])
    store.close()
    note("stopped")


def check_effect(given: Collection[str], idle: Collection[str], needed: str) -> None:
    """Raise InputError if the user passed an option in `idle`, which requires `needed`."""
    if found := set(given) & set(idle):
        raise InputError(f"{flag_of(min(found))} has no effect without {needed}, or omit the flag")


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; raise InputError if the address cannot be used."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "choose another --host or --port"
        ) from error
    # Accepted connections inherit this. Without it, the second part of each answer on a kept
    # connection waits until the client acknowledges the first, which takes 40 ms. asyncio does
    # this only for listeners that it opens.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def build_server(app: "FastAPI", limits: Limits) -> "uvicorn.Server":
    """Build a uvicorn server that also closes the application's queues on a signal."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=build_protocol(most_connections(limits.connections)),
        ws="none",
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(limits.timeout) + 5,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        app.state.close()
        server.force_exit = server.should_exit
        server.should_exit = True

    server.handle_exit = stop  # type: ignore[method-assign, assignment]
    return server
