"""Parameters and responses of the endpoints of projections, for FastAPI and OpenAPI.

FastAPI and pydantic are imported inside functions because the rest of the library works without
them.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..plots.projections import MAX_GROUPS
from .projection import MAX_POINTS
from .search_schemas import hit_model, index_field
from .spatial_schemas import labels_field

if TYPE_CHECKING:
    import pydantic

MAX_ROWS = 500  # in a request for rows


def projection_parameters() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/projection."""
    from pydantic import ConfigDict, Field, create_model

    method = Field(
        "labels",
        description="labels: one label is the first axis, two are both axes, and more are anchors "
        "on a circle; only for an index with has_regions. pca: the first two principal components "
        "of the embeddings; labels, which need an index with has_regions, then only divide the "
        "points into groups",
    )
    diversity = Field(
        False,
        description="whether the variance of the regions of an image is the second axis of one "
        "label, or the first axis without labels",
    )
    limit = Field(
        MAX_POINTS,
        ge=1,
        le=MAX_POINTS,
        description="maximum number of points; of a larger index, a random sample is shown, which "
        "is always the same",
    )
    fields: dict[str, Any] = {
        "index": index_field(),
        "method": (Literal["labels", "pca"], method),
        "labels": labels_field("words, phrases or sentences", at_most=MAX_GROUPS),
        "diversity": (bool, diversity),
        "limit": (int, limit),
    }
    return create_model("Projection", __config__=ConfigDict(extra="forbid"), **fields)


def projection_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /api/projection, the result of `project_index`."""
    from pydantic import BaseModel, Field

    class ProjectedIndex(BaseModel):
        index: str = Field(description="name of the index")
        kind: Literal["images", "texts"] = Field(description="type of the rows of the index")
        version: str = Field(description="changes whenever the index is written")
        rows: int = Field(description="number of rows of the index")
        row: list[int] = Field(description="row number of each point in the index, ascending")
        x: list[float] = Field(description="x coordinate of each point, increasing to the right")
        y: list[float] = Field(description="y coordinate of each point, increasing upwards")
        group: list[int] = Field(
            description="index of the most probable label of each point, from 0; -1 if no label "
            "has a probability of at least 0.5"
        )
        labels: list[str] = Field(description="the labels")
        axes: list[str] | None = Field(
            description="names of the x axis and the y axis; null if the labels are anchors"
        )
        anchors: list[list[float]] | None = Field(
            description="position of each label on a circle; each point is at a weighted mean of "
            "these positions; null unless method is labels and there are three or more labels"
        )

    return ProjectedIndex


def rows_parameters() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/rows."""
    from pydantic import ConfigDict, Field, create_model

    Row = Annotated[int, Field(ge=0, lt=2**40)]  # noqa: N806  a type
    about = "rows of the index, from 0; repeat the parameter for several"
    fields: dict[str, Any] = {
        "index": index_field(),
        "rows": (list[Row], Field(min_length=1, max_length=MAX_ROWS, description=about)),
    }
    return create_model("RowsParameters", __config__=ConfigDict(extra="forbid"), **fields)


def rows_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /api/rows, the result of `Collection.rows`."""
    from pydantic import BaseModel, Field

    class Rows(BaseModel):
        index: str = Field(description="name of the index")
        version: str = Field(description="changes whenever the index is written")
        hits: list[hit_model()] = Field(  # type: ignore[valid-type]
            description="the rows, in the order of the request"
        )

    return Rows
