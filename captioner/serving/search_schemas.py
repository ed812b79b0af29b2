"""Parameters and responses of the search endpoints, for FastAPI and OpenAPI.

FastAPI and pydantic are imported inside functions because the rest of the library works without
them.
"""

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from .collections import MAX_HITS, MAX_IMAGES, MAX_KNOWN, SearchRequest

if TYPE_CHECKING:
    import pydantic

MAX_QUERY = 1000  # characters
MAX_VECTOR = 12_009  # characters of a written vector of 4,500 dimensions
MAX_LIMIT = 200
QUERY_HELP = (
    "words, phrases and image:NAME, added or subtracted, with optional weights, such as "
    f"2*snow - dog; NAME is the name of a hit; at most {MAX_IMAGES} images are accepted"
)


def search_parameters(*, with_image: bool) -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/search.

    with_image: whether the request contains the image itself, so that the parameter for its vector
    is omitted.
    """
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {
        "query": (
            str,
            Field(
                "",
                max_length=MAX_QUERY,
                description=f"{QUERY_HELP}; these terms are added to the image"
                if with_image
                else f"{QUERY_HELP}; if query and image are empty, the hits are all rows in order",
            ),
        ),
        "index": index_field(),
        "offset": (
            int,
            Field(0, ge=0, lt=MAX_HITS, description="number of best hits to skip"),
        ),
        "limit": (
            int,
            Field(SearchRequest.limit, ge=1, le=MAX_LIMIT, description="maximum number of hits"),
        ),
    }
    if not with_image:
        fields["image"] = (
            str,
            Field(
                "",
                max_length=MAX_VECTOR,
                description="vector of an image that was sent earlier, from the field image of the "
                "response; becomes the first term of the query",
            ),
        )
    name = "ImageSearch" if with_image else "Search"
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def index_field() -> tuple[Any, Any]:
    """Return the type and the description of the name of an index in a request."""
    from pydantic import Field

    about = "name of the index; the first one by default"
    return str, Field("", max_length=255, description=about)


def thumbnail_parameters() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of a thumbnail's URL."""
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {
        "version": (
            str,
            Field("", max_length=64, description="from the thumbnail of a hit; 404 if outdated"),
        ),
        "key": (
            str,
            Field(
                "",
                max_length=64,
                description="from a thumbnail's URL; instead of the token",
            ),
        ),
    }
    return create_model("Thumbnail", __config__=ConfigDict(extra="forbid"), **fields)


def index_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /api/indexes, for OpenAPI."""
    from pydantic import BaseModel, Field

    class Index(BaseModel):
        name: str = Field(description="name by which requests refer to the index")
        kind: Literal["images", "texts"] = Field(description="type of the rows")
        rows: int = Field(description="number of rows")
        has_regions: bool = Field(
            description="whether the index has region embeddings of a spatial model: it can be "
            "painted, its model labels images, and its images can be placed among labels"
        )
        labels: list[str] = Field(
            description=f"the first {MAX_KNOWN} labels of the training data, frequent ones first; "
            "empty without regions. Other words can be used, too"
        )

    class Indexes(BaseModel):
        indexes: list[Index] = Field(description="the indexes, the default first")

    return Indexes


@cache
def hit_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of a hit, which is a row of an index."""
    from pydantic import BaseModel, Field

    class Hit(BaseModel):
        row: int = Field(description="row of the hit in the index, from 0")
        kind: Literal["image", "text"]
        name: str | None = Field(description="name of the image; null for a text")
        text: str | None = Field(description="the text; null for an image")
        term: str = Field(description="the hit written as a query term")
        score: float | None = Field(
            description="cosine similarity to the query, from -1 to 1, or the unbounded dot "
            "product for a model trained with --similarity dot; null if there is neither a query "
            "nor an image. For a painted search, the sum over the layers of the painted mean of "
            "the word's map, each from -1 to 1, and over the terms of weight times probability, or "
            "for an image weight times cosine"
        )
        thumbnail: str | None = Field(
            description="URL of a JPEG, relative to that of the service; null for a text"
        )

    return Hit


def hits_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of a search, the result of `Collection.search`."""
    from pydantic import BaseModel, Field

    class Term(BaseModel):
        term: str = Field(description="the term as written in a query, with its sign")
        kind: Literal["image", "text"]
        text: str = Field(description="the phrase, or the name of the image")
        weight: float = Field(description="weight of the term's vector; negative if subtracted")
        thumbnail: str | None = Field(description="URL of the image's JPEG; null for a text")

    class Hits(BaseModel):
        index: str = Field(description="name of the index")
        kind: Literal["images", "texts"] = Field(description="type of the rows of the index")
        version: str = Field(description="version of the index; changes whenever it is written")
        query: str = Field(description="the query in canonical form; may be empty")
        image: str | None = Field(
            description="vector of the uploaded image, for further requests; null without an image"
        )
        terms: list[Term] = Field(description="the terms of the query")
        rows: int = Field(description="number of rows of the index")
        total: int = Field(description=f"number of hits that can be requested, at most {MAX_HITS}")
        offset: int = Field(description="number of best hits that were skipped")
        hits: list[hit_model()] = Field(  # type: ignore[valid-type]
            description="the hits, best first; rows in order if there is nothing to search for"
        )

    return Hits
