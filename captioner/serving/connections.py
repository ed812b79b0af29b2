"""Limits on open connections and on the time that a request's head may take.

uvicorn closes idle connections only after their first response and, above its own limit, responds
with 503. uvicorn is imported inside functions because the rest of the library works without it.
"""

import asyncio
import resource
import time
from typing import Any

HEAD_SECONDS = 10.0  # from the connection, or the last answer, to the end of a request's head
BACKLOG = 50  # connections accepted at once, before any of them is counted


def most_connections(limit: int) -> int:
    """Return `limit`, or a quarter of the number of files that may be open if that is less.

    The other files are for connections that asyncio has accepted but the protocol has not yet
    counted, and for those that are not yet closed.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if files == resource.RLIM_INFINITY else min(limit, files // 4)


def build_protocol(limit: int) -> type[asyncio.Protocol]:
    """Build uvicorn's HTTP/1.1 protocol with limits on open connections and request heads.

    A connection without a complete request head is closed after HEAD_SECONDS. A connection above
    `limit` replaces the one that has waited longest for its client, so that silent and slow
    clients cannot block others; a connection whose request is being answered is never closed.
    """
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.timer = self._limit_head()
            if len(self.connections) > limit:
                waiting: list[Any] = [each for each in self.connections if each.awaits_client()]  # type: ignore[union-attr]
                longest = min(waiting, key=lambda each: each.since)
                self.connections.discard(longest)  # now, as the next connection counts again
                longest.transport.close()

        def awaits_client(self) -> bool:
            """Return whether no request, or only a part of one, has arrived."""
            return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

        def on_response_complete(self) -> None:
            self.timer.cancel()
            self.timer = self._limit_head()
            super().on_response_complete()  # starts a request that has already arrived

        def shutdown(self) -> None:
            if self.awaits_client():  # uvicorn would wait for the rest of the request
                self.transport.close()
            else:
                super().shutdown()

        def _limit_head(self) -> asyncio.TimerHandle:
            self.since = time.monotonic()
            return self.loop.call_later(HEAD_SECONDS, self._close_unless_next, self.cycle)

        def _close_unless_next(self, answered: object) -> None:
            if self.cycle is answered:
                self.transport.close()

    return Protocol
