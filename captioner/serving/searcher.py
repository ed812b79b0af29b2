"""The collections of a service, and the one thread that runs models other than captioners.

FastAPI is imported inside functions because the rest of the library works without it.
"""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from ..data.images import Transform, read_image
from ..errors import InputError
from ..prefetch import WORKERS
from .access import Access
from .batcher import Batcher, Closed
from .collections import Collection
from .schemas import Limits, receive_image
from .snapshots import Damaged, unreadable
from .thumbnails import thumbnail_key

if TYPE_CHECKING:
    import fastapi

THUMBNAILS = "/api/thumbnails"

log = logging.getLogger(__name__)
Work = Callable[[], dict[str, Any]]


class Searcher:
    """The collections by name, if there are any, and one thread that processes requests."""

    def __init__(self, collections: Sequence[Collection], limits: Limits, access: Access) -> None:
        self.collections = {each.name: each for each in collections}
        self.batcher: Batcher[Work, str, dict[str, Any]] = Batcher(
            lambda works, _: [work() for work in works], batch_size=1, capacity=limits.queue
        )
        self.limits = limits
        self._secret = access.token
        self._readers = ThreadPoolExecutor(WORKERS, "search-reader")

    def find(self, name: str) -> Collection:
        """Return the collection called `name`, or the first one for "".

        Raises HTTPException with 404 if there is none of this name.
        """
        from fastapi import HTTPException

        name = name or next(iter(self.collections))
        if name not in self.collections:
            known = ", ".join(self.collections)
            raise HTTPException(404, f"there is no index {name!r}; choose one of: {known}")
        return self.collections[name]

    async def answer(self, collection: Collection, work: Work) -> "fastapi.Response":
        """Run `work` in the batcher's thread, and respond with its result.

        Raises InputError as it does, the errors of `Batcher.admit`, TimeoutError after the time
        limit, and HTTPException with 500 if the work fails otherwise.
        """
        async with asyncio.timeout(self.limits.timeout):
            with self.batcher.admit():
                return await self._run(collection.name, work)

    async def answer_image(
        self,
        name: str,
        transform: Transform,
        request: "fastapi.Request",
        work: Callable[[Image.Image], dict[str, Any]],
    ) -> "fastapi.Response":
        """Run `work` on the image of a request in the batcher's thread; respond with its result.

        name: the collection's name, for messages about a damaged index. transform: determines the
        size to which the image is resized. Raises as `answer` and `receive_image` do, and
        InputError if the image cannot be read.
        """
        limits = self.limits

        def read(content: bytes) -> Image.Image:
            return transform.squash(read_image(content, limits.max_pixels, transform.least))

        self.batcher.check_free()  # without reading an image in vain
        async with asyncio.timeout(limits.timeout):
            content = await receive_image(request, limits)
            with self.batcher.admit():
                loop = asyncio.get_running_loop()
                image = await loop.run_in_executor(self._readers, read, content)
                return await self._run(name, lambda: work(image))

    async def _run(self, name: str, work: Work) -> "fastapi.Response":
        from fastapi import HTTPException, Response

        try:
            answer = await asyncio.wrap_future(self.batcher.submit(work, name))
        except (Closed, TimeoutError, InputError, HTTPException):
            raise
        except Exception as error:
            log.exception("a request failed")
            failed = "the request failed; see the log of the service for the cause"
            what = unreadable(name) if isinstance(error, Damaged) else failed
            raise HTTPException(500, what) from error
        return Response(json.dumps(answer), media_type="application/json")

    def address(self, collection: Collection, row: int, entry: dict[str, Any]) -> str:
        """Return the URL of the thumbnail of a row, whose line in the index is `entry`."""
        version = thumbnail_key(entry)
        place = f"{collection.name}/{row}"
        key = f"&key={self.sign(place, version)}" if self._secret else ""
        path = quote(f"{THUMBNAILS[1:]}/{place}")
        return f"{path}?version={version}{key}"

    def sign(self, place: str, version: str) -> str:
        """Return the key for a thumbnail's URL, because an <img> element cannot send the token.

        place: INDEX/ROW. version: the `thumbnail_key`.
        """
        secret, message = (self._secret or "").encode(), f"{place}?{version}"
        return hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()[:32]
