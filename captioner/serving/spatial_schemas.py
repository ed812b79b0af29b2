"""Requests and responses of the endpoints of spatial models: painted search, labels and maps.

FastAPI and pydantic are imported inside functions because the rest of the library works without
them.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from ..retrieval.painting import Layer
from .search_schemas import index_field, search_parameters

if TYPE_CHECKING:
    import pydantic

MAX_LAYERS = 8
MAX_SIDE = 32  # cells of a painted grid
MAX_TEXT = 200  # characters of a label, which may be a sentence
MAX_LABELS = 100
MAX_MAPS = 16
MAX_BODY = 2**18  # bytes of a painting as JSON


def painting_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of a painted search: the parameters of a search, and layers."""
    from pydantic import BaseModel, ConfigDict, Field, create_model

    Weight = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]  # noqa: N806  types
    Row = Annotated[list[Weight], Field(min_length=1, max_length=MAX_SIDE)]  # noqa: N806

    class PaintedLayer(BaseModel):
        model_config = ConfigDict(extra="forbid")

        word: str = Field(
            min_length=1, max_length=MAX_TEXT, description="a word, phrase or sentence"
        )
        grid: list[Row] = Field(
            min_length=1,
            max_length=MAX_SIDE,
            description="rows of cells over the image, from the top; above 0 where the word should "
            "be, below 0 where it should not be, and 0 where nothing is painted. Any size up to "
            f"{MAX_SIDE} x {MAX_SIDE} is accepted and resampled by area: [[1, 0]] is the left half",
        )

    layers = Field(
        min_length=1, max_length=MAX_LAYERS, description="the painted words, whose scores are added"
    )
    base = search_parameters(with_image=False)
    return create_model("Painting", __base__=base, layers=(list[PaintedLayer], layers))


def painted_layers(given: Iterable[Mapping[str, Any]]) -> tuple[Layer, ...]:
    """Return the layers of a painting, given as dicts; raise InputError as `Layer` does."""
    return tuple(Layer(each["word"], each["grid"]) for each in given)


def label_parameters(*, with_maps: bool) -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/label, or of /api/localize.

    with_maps: whether they are those of /api/localize.
    """
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {"index": index_field()}
    if with_maps:
        fields["labels"] = labels_field("words, phrases or sentences", at_least=1, at_most=MAX_MAPS)
    else:
        about = "words, phrases or sentences; without them, the labels of the training data"
        fields["labels"] = labels_field(about, at_most=MAX_LABELS)
        fields["limit"] = (
            int,
            Field(10, ge=1, le=MAX_LABELS, description="maximum number of labels to return"),
        )
    name = "LocalizeParameters" if with_maps else "LabelParameters"
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def labels_field(about: str, *, at_least: int = 0, at_most: int) -> tuple[Any, Any]:
    """Return the type and the field of a list of labels in a query, described by `about`.

    at_least, at_most: bounds of the number of labels; with an `at_least` of 0, none are required.
    """
    from pydantic import Field, StringConstraints

    text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]
    default: Any = ... if at_least else []
    description = f"{about}; repeat the parameter for several"
    field = Field(default, description=description, min_length=at_least, max_length=at_most)
    return list[text], field


def labels_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /api/label, the result of `label_image`."""
    from pydantic import BaseModel, Field

    class Label(BaseModel):
        label: str
        score: float = Field(
            description="probability that the image shows the label, from 0 to 1; not calibrated "
            "for words that were not labels in training"
        )

    class Labels(BaseModel):
        labels: list[Label] = Field(description="the labels, the most likely first")

    return Labels


def maps_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /api/localize, the result of `localize_labels`."""
    from pydantic import BaseModel, Field

    class LabelMap(BaseModel):
        label: str
        score: float = Field(description="probability that the image shows the label, from 0 to 1")
        map: list[list[float]] = Field(
            description="probability of the label in each cell, from 0 to 1, as rows from the top"
        )

    class Maps(BaseModel):
        offset: float = Field(
            description="distance of the values from the centres of their cells, down and to the "
            "right, as a fraction of a cell"
        )
        labels: list[LabelMap] = Field(description="the labels, in the order of the request")

    return Maps
