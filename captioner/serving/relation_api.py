"""The endpoint of relation models: how an image and a text relate, and words the image supports.

FastAPI and pydantic are imported inside functions because the rest of the library works without
them. Shapes: (h, w) grid.
"""

from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image

from ..linker import Linker
from ..models.relation.options import SUPPORTED
from ..regions import spatial
from ..relation import RelationClassifier, word_support
from .access import Access, token_check
from .schemas import error_responses, image_body
from .searcher import Searcher

if TYPE_CHECKING:
    import fastapi
    import pydantic

RELATE = "/api/relate"
MAX_TEXT = 4000  # characters of a text


def add_relations(
    app: "fastapi.FastAPI",
    classifier: RelationClassifier,
    linker: Linker | None,
    searcher: Searcher,
    access: Access,
) -> None:
    """Add /api/relate.

    linker: a spatial model, which finds the words that the image supports; None omits them.
    """
    from fastapi import Query, Request, Response

    require_token = token_check(access.token)
    Parameters = text_parameters()  # noqa: N806  a class
    transforms = [classifier.transform, *([linker.transform] if linker else [])]
    largest = max(transforms, key=lambda each: each.size)

    @app.post(
        RELATE,
        dependencies=require_token,
        summary="Predict how an image and a text relate",
        description="The image is the body of the request or the form file named image.",
        responses={
            200: {"model": relation_model(), "description": "the relation"},
            **error_responses(403, 413, 422, 429, 500, 503, 504, *[401] * bool(require_token)),
        },
        openapi_extra=image_body(),
    )
    async def relate(request: Request, query: Annotated[Parameters, Query()]) -> Response:  # type: ignore[valid-type]
        given: dict[str, Any] = dict(query)
        text = given["text"]
        return await searcher.answer_image(
            "relation", largest, request, lambda image: relate_text(classifier, linker, image, text)
        )


def relate_text(
    classifier: RelationClassifier, linker: Linker | None, image: Image.Image, text: str
) -> dict[str, Any]:
    """Return the relation of an image and a text as JSON; `relation_model` describes the keys.

    Raises InputError as `RelationClassifier.relate` does.
    """
    relation = classifier.relate(image, text)
    labels = [
        {
            "label": name,
            "value": found.value,
            "expected": round(found.expected, 4),
            "probabilities": [
                {"value": level, "probability": round(p, 4)}
                for level, p in found.probabilities.items()
            ],
        }
        for name, found in relation.labels.items()
    ]
    support = _support(linker, image, text) if linker else {"offset": 0.0, "words": None}
    return {"labels": labels, "unknown_words": list(relation.unknown_words), **support}


def _support(linker: Linker, image: Image.Image, text: str) -> dict[str, Any]:
    """Return the content words that a spatial model knows, their scores and their maps (h, w)."""
    scores = word_support(linker, image, text)
    maps = linker.label_maps(image, list(scores))[0] if scores else ()
    return {
        "offset": spatial(linker.model).encoder.offset,
        "words": [
            {
                "word": word,
                "score": round(score, 4),
                "supported": score >= SUPPORTED,
                "map": values.astype(float).round(4).tolist(),
            }
            for (word, score), values in zip(scores.items(), maps, strict=True)
        ],
    }


def text_parameters() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/relate."""
    from pydantic import ConfigDict, Field, create_model

    about = "one or more sentences"
    field = Field(description=about, min_length=1, max_length=MAX_TEXT)
    config = ConfigDict(extra="forbid")
    return create_model("RelationParameters", __config__=config, text=(str, field))


def relation_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the result of `relate_text`, for OpenAPI."""
    from pydantic import BaseModel, Field

    class Level(BaseModel):
        value: float
        probability: float

    class PredictedLabel(BaseModel):
        label: str = Field(description="the name, such as cmi or sc")
        value: float = Field(description="the most likely value")
        expected: float = Field(description="the mean of the values, weighted by probability")
        probabilities: list[Level] = Field(description="of all values, in ascending order")

    class SupportedWord(BaseModel):
        word: str = Field(description="a content word of the text, in lower case")
        score: float = Field(description="probability that the image shows it, from 0 to 1")
        supported: bool = Field(description=f"whether the score is at least {SUPPORTED}")
        map: list[list[float]] = Field(
            description="probability of the word in each cell, from 0 to 1, as rows from the top"
        )

    class Relation(BaseModel):
        labels: list[PredictedLabel]
        unknown_words: list[str] = Field(description="words of the text that the model ignores")
        words: list[SupportedWord] | None = Field(
            description="the content words that the spatial model knows, each once; null if no "
            "index of a spatial model is served"
        )
        offset: float = Field(
            description="distance of a map's values from the centres of their cells, down and to "
            "the right, as a fraction of a cell"
        )

    return Relation
