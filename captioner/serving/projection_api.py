"""The endpoints of projections: positions of an index's rows on a plane, and rows by number.

FastAPI is imported inside functions because the rest of the library works without it.
"""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from .access import Access, token_check
from .projection import ProjectionRequest, project_index
from .projection_schemas import (
    projection_model,
    projection_parameters,
    rows_model,
    rows_parameters,
)
from .schemas import error_responses
from .searcher import Searcher

if TYPE_CHECKING:
    import fastapi

PROJECTION, ROWS = "/api/projection", "/api/rows"


def add_projection(app: "fastapi.FastAPI", searcher: Searcher, access: Access) -> None:
    """Add /api/projection and /api/rows."""
    from fastapi import HTTPException, Query, Response

    require_token = token_check(access.token)
    Parameters = projection_parameters()  # noqa: N806  classes
    RowsParameters = rows_parameters()  # noqa: N806
    errors = error_responses(404, 422, 429, 500, 503, 504, *[401] * bool(require_token))

    @app.get(
        PROJECTION,
        dependencies=require_token,
        summary="Place the rows of an index on a plane",
        responses={200: {"model": projection_model(), "description": "the positions"}, **errors},
    )
    async def projection(query: Annotated[Parameters, Query()]) -> Response:  # type: ignore[valid-type]
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given.pop("index"))
        request = ProjectionRequest(**{**given, "labels": tuple(given["labels"])})
        return await searcher.answer(collection, lambda: project_index(collection, request))

    @app.get(
        ROWS,
        dependencies=require_token,
        summary="Get names and thumbnails, or texts, of rows of an index",
        responses={200: {"model": rows_model(), "description": "the rows"}, **errors},
    )
    async def rows(query: Annotated[RowsParameters, Query()]) -> Response:  # type: ignore[valid-type]
        given: dict[str, Any] = dict(query)
        collection = searcher.find(given["index"])

        def work() -> dict[str, Any]:
            try:
                return collection.rows(given["rows"], partial(searcher.address, collection))
            except IndexError as error:
                raise HTTPException(404, str(error)) from error

        return await searcher.answer(collection, work)
