"""The endpoints of spatial models: painted search, labels of an image, and their maps.

FastAPI is imported inside functions because the rest of the library works without it.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from .access import Access, token_check
from .collections import SearchRequest
from .labels import label_image, localize_labels
from .schemas import error_responses, image_body, json_body, parse_body, receive_body
from .search_schemas import hits_model
from .searcher import Searcher
from .spatial_schemas import (
    MAX_BODY,
    label_parameters,
    labels_model,
    maps_model,
    painted_layers,
    painting_model,
)
from .vectors import read_vector

if TYPE_CHECKING:
    import fastapi

PAINT, LABEL, LOCALIZE = "/api/paint", "/api/label", "/api/localize"


def add_spatial(app: "fastapi.FastAPI", searcher: Searcher, access: Access) -> None:
    """Add /api/paint, /api/label and /api/localize."""
    require_token = token_check(access.token)
    _add_painting(app, searcher, require_token)
    _add_labels(app, searcher, require_token)


def _add_painting(app: "fastapi.FastAPI", searcher: Searcher, require_token: Sequence[Any]) -> None:
    from fastapi import Request, Response

    Painting = painting_model()  # noqa: N806  a class
    limits, unauthorised = searcher.limits, [401] * bool(require_token)
    too_large = (
        f"the body is too large: at most {MAX_BODY:,} bytes are accepted; send a smaller one"
    )

    @app.post(
        PAINT,
        dependencies=require_token,
        summary="Search an index by where in an image words are",
        description="Works like a search with GET, but also accepts painted words. The parameters "
        "are fields of the "
        f"body, which is JSON of at most {MAX_BODY:,} bytes.",
        responses={
            200: {"model": hits_model(), "description": "the hits"},
            **error_responses(403, 404, 413, 422, 429, 500, 503, 504, *unauthorised),
        },
        openapi_extra=json_body(Painting),
    )
    async def paint(request: Request) -> Response:
        async with asyncio.timeout(limits.timeout):
            content = await receive_body(request, MAX_BODY, too_large)
        given = parse_body(content, Painting)
        collection = searcher.find(given["index"])
        vector = read_vector(given["image"], collection.weights) if given["image"] else None
        layers = painted_layers(given["layers"])
        wanted = SearchRequest(given["query"], vector, given["offset"], given["limit"], layers)
        address = partial(searcher.address, collection)
        return await searcher.answer(collection, lambda: collection.search(wanted, address))


def _add_labels(app: "fastapi.FastAPI", searcher: Searcher, require_token: Sequence[Any]) -> None:
    from fastapi import Query, Request, Response

    LabelParameters = label_parameters(with_maps=False)  # noqa: N806  classes
    LocalizeParameters = label_parameters(with_maps=True)  # noqa: N806
    unauthorised = [401] * bool(require_token)
    errors = error_responses(403, 404, 413, 422, 429, 500, 503, 504, *unauthorised)
    about = (
        "The image is the body of the request or the form file named image. The labels are scored "
        "by the model of an index with has_regions, and need not be labels of its training data."
    )

    @app.post(
        LABEL,
        dependencies=require_token,
        summary="Score words, phrases or sentences as labels of an image",
        description=about,
        responses={200: {"model": labels_model(), "description": "the labels"}, **errors},
        openapi_extra=image_body(),
    )
    async def label(
        request: Request,
        query: Annotated[LabelParameters, Query()],  # type: ignore[valid-type]
    ) -> Response:
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given["index"])
        return await searcher.answer_image(
            collection.name,
            collection.linker.transform,
            request,
            lambda image: label_image(collection.linker, image, given["labels"], given["limit"]),
        )

    @app.post(
        LOCALIZE,
        dependencies=require_token,
        summary="Find where an image shows what words, phrases or sentences describe",
        description=about,
        responses={200: {"model": maps_model(), "description": "the maps"}, **errors},
        openapi_extra=image_body(),
    )
    async def localize(
        request: Request,
        query: Annotated[LocalizeParameters, Query()],  # type: ignore[valid-type]
    ) -> Response:
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given["index"])
        return await searcher.answer_image(
            collection.name,
            collection.linker.transform,
            request,
            lambda image: localize_labels(collection.linker, image, given["labels"]),
        )
