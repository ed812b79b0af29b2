"""The endpoints of search: indexes, searches and thumbnails.

FastAPI is imported inside functions because the rest of the library works without it.
"""

import asyncio
import hmac
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image

from ..errors import InputError
from ..prefetch import WORKERS
from .access import Access, token_check
from .collections import Collection, SearchRequest, describe_index
from .schemas import error_responses, image_body
from .search_schemas import hits_model, index_model, search_parameters, thumbnail_parameters
from .searcher import THUMBNAILS, Searcher
from .snapshots import Damaged, unreadable
from .thumbnails import ThumbnailStore, get_thumbnail, thumbnail_key
from .vectors import embed_upload, read_vector

if TYPE_CHECKING:
    import fastapi

SEARCH = "/api/search"
NEVER_CHANGES = "private, max-age=31536000, immutable"
CHECK_FIRST = "private, no-cache"

log = logging.getLogger(__name__)


def add_search(app: "fastapi.FastAPI", searcher: Searcher, access: Access) -> None:
    """Add /api/indexes and /api/search."""
    from fastapi import Query, Response
    from fastapi import Request as HttpRequest

    require_token = token_check(access.token)
    Parameters = search_parameters(with_image=False)  # noqa: N806  classes
    ImageParameters = search_parameters(with_image=True)  # noqa: N806
    unauthorised = [401] * bool(require_token)
    results: dict[int | str, dict[str, Any]] = {
        200: {"model": hits_model(), "description": "the hits"}
    }

    @app.get(
        "/api/indexes",
        dependencies=require_token,
        summary="List the indexes",
        responses={
            200: {"model": index_model(), "description": "the indexes"},
            **error_responses(500, *unauthorised),
        },
    )
    def indexes() -> Response:
        from fastapi import HTTPException

        try:
            opened = [(each.name, each.snapshot()) for each in searcher.collections.values()]
        except Damaged as error:
            log.exception("an index cannot be read")
            detail = "an index cannot be read; see the log of the service for the cause"
            raise HTTPException(500, detail) from error
        answer = {"indexes": [describe_index(name, snapshot) for name, snapshot in opened]}
        return Response(json.dumps(answer), media_type="application/json")

    @app.get(
        SEARCH,
        dependencies=require_token,
        summary="Search an index",
        responses={
            **results,
            **error_responses(404, 422, 429, 500, 503, 504, *unauthorised),
        },
    )
    async def search(query: Annotated[Parameters, Query()]) -> Response:  # type: ignore[valid-type]
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given["index"])
        vector = read_vector(given["image"], collection.weights) if given["image"] else None
        request = SearchRequest(given["query"], vector, given["offset"], given["limit"])
        address = partial(searcher.address, collection)
        return await searcher.answer(collection, lambda: collection.search(request, address))

    @app.post(
        SEARCH,
        dependencies=require_token,
        summary="Search an index for images or texts similar to an image",
        description="The image is the body of the request or the form file named image. The hits "
        "are its nearest neighbours; query adds further terms, such as - red. To search again "
        "without sending the image, pass the field image of the response to the GET method.",
        responses={
            **results,
            **error_responses(*(403, 404, 413, 422, 429, 500, 503, 504, *unauthorised)),
        },
        openapi_extra=image_body(),
    )
    async def search_image(
        request: HttpRequest,
        query: Annotated[ImageParameters, Query()],  # type: ignore[valid-type]
    ) -> Response:
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given["index"])

        def search(image: Image.Image) -> dict[str, Any]:
            vector = embed_upload(collection.linker, image, collection.weights)
            wanted = SearchRequest(given["query"], vector, given["offset"], given["limit"])
            return collection.search(wanted, partial(searcher.address, collection))

        transform = collection.linker.transform
        return await searcher.answer_image(collection.name, transform, request, search)


def add_thumbnails(
    app: "fastapi.FastAPI", searcher: Searcher, access: Access, store: ThumbnailStore | None
) -> None:
    """Add /api/thumbnails/{index}/{row}."""
    from fastapi import HTTPException, Path, Query, Response
    from fastapi import Request as HttpRequest

    Parameters = thumbnail_parameters()  # noqa: N806  a class
    makers = ThreadPoolExecutor(WORKERS, "thumbnail")
    limits = searcher.limits

    def has_key(request: HttpRequest) -> bool:
        place = f"{request.path_params['index']}/{request.path_params['row']}"
        given = request.query_params
        right = searcher.sign(place, given.get("version", ""))
        return hmac.compare_digest(given.get("key", "").encode(), right.encode())

    require_token = token_check(access.token, exempt=has_key)

    def make(collection: Collection, row: int, version: str, known: str) -> Response:
        """Return a thumbnail; raise HTTPException if it cannot be made or `version` is outdated."""
        try:
            entry, name = collection.read(lambda snapshot: snapshot.image(row))
        except Damaged as error:
            log.exception("an index cannot be read")
            raise HTTPException(500, unreadable(collection.name)) from error
        if entry is None:
            raise HTTPException(404, f"the index {collection.name} has no image in row {row}")
        key = thumbnail_key(entry)
        if version and version != key:
            raise HTTPException(404, f"the index {collection.name} has changed; search again")
        headers = {"etag": f'"{key}"', "cache-control": NEVER_CHANGES if version else CHECK_FIRST}
        if known == headers["etag"]:
            return Response(status_code=304, headers=headers)
        try:
            content, unchanged = get_thumbnail(store, entry, name, limits.max_pixels)
        except InputError as error:
            raise HTTPException(404, str(error)) from error
        if not unchanged:
            headers = {}
        return Response(content, media_type="image/jpeg", headers=headers)

    jpeg = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}

    @app.get(
        THUMBNAILS + "/{index}/{row}",
        dependencies=require_token,
        summary="Get a JPEG thumbnail of an indexed image, at most 320 pixels wide and high",
        response_class=Response,
        responses={
            200: {"content": jpeg, "description": "the image, upright"},
            304: {"description": "the image is unchanged: its ETag is the one in If-None-Match"},
            **error_responses(404, 422, 500, 504, *[401] * bool(require_token)),
        },
    )
    async def thumbnail(
        request: HttpRequest,
        index: Annotated[str, Path(max_length=255, description="name of the index")],
        row: Annotated[int, Path(ge=0, lt=2**40, description="row of a hit")],
        query: Annotated[Parameters, Query()],  # type: ignore[valid-type]
    ) -> Response:
        collection = searcher.find(index)
        given: dict[str, str] = dict(query)
        version, known = given["version"], request.headers.get("if-none-match", "")
        async with asyncio.timeout(limits.timeout):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(makers, make, collection, row, version, known)
