"""Requests and responses of the service: limits, options, images, captions.

FastAPI and pydantic are imported inside functions because the rest of the library works without
them.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from ..decoding.options import BEAM_SIZE, DecodingOptions
from ..options import check_bounds, option

if TYPE_CHECKING:
    import pydantic
    from fastapi import Request

    from ..caption import Caption

MAX_ALTERNATIVES = 20  # maximum value of word_alternatives
MAX_SAMPLES = 50  # maximum value of consensus
FORM_BYTES = 2**16  # maximum size of a form without its image
ERRORS = {
    401: "the token is missing or wrong",
    403: "the request came from a page of another site",
    404: "the index or row does not exist or has changed, or the row's image cannot be read",
    413: "the image file or the body is too large",
    421: "the request names a host that is not allowed",
    422: "the image cannot be read, or a parameter is invalid",
    429: "the request queue is full",
    500: "the request failed; see the log of the service for the cause",
    503: "the service is stopping",
    504: "the time limit was exceeded",
}
FORM_ERROR = "a form must contain one file, named image; options belong in the query"


@dataclass(frozen=True)
class Limits:
    """Limits on a single request and on all requests together.

    The limit `queue` applies to requests for captions, and separately to all other requests.
    """

    max_bytes: int = option(16 * 2**20, "maximum size of an image file in bytes", at_least=1)
    max_pixels: int = option(50_000_000, "maximum number of pixels in an image", at_least=1)
    max_beam_size: int = option(
        10, "maximum value of beam_size and num_captions", at_least=BEAM_SIZE
    )
    max_words: int = option(
        50, "maximum value of max_length and min_length", at_least=DecodingOptions().max_length
    )
    queue: int = option(128, "maximum number of unanswered requests", at_least=1)
    connections: int = option(256, "maximum number of open connections", at_least=1)
    batch_size: int = option(32, "maximum number of images in a batch", at_least=1)
    timeout: float = option(30.0, "time limit of a request in seconds", above=0)

    def __post_init__(self) -> None:
        check_bounds(self)


def query_model(limits: Limits) -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the query parameters of /api/caption.

    They are the fields of DecodingOptions, with their help and bounds; `limits`, MAX_ALTERNATIVES
    and MAX_SAMPLES are the maxima of some.
    """
    from pydantic import ConfigDict, Field, create_model

    maxima = {
        "beam_size": limits.max_beam_size,
        "num_captions": limits.max_beam_size,
        "max_length": limits.max_words,
        "min_length": limits.max_words,
        "word_alternatives": MAX_ALTERNATIVES,
        "consensus": MAX_SAMPLES,
    }
    hints = get_type_hints(DecodingOptions)
    parameters: dict[str, Any] = {}
    for field in fields(DecodingOptions):
        kind, choices = hints[field.name], field.metadata["choices"]
        if choices:
            kind = Literal[tuple(choices)]
        elif field.default is None:  # a query has no null, only the absence of a parameter
            kind = get_args(kind)[0]
        bounds = field.metadata["bounds"]
        parameters[field.name] = (
            kind,
            Field(
                field.default,
                description=field.metadata["help"],
                ge=bounds.get("at_least"),
                gt=bounds.get("above"),
                le=maxima.get(field.name, bounds.get("at_most")),
            ),
        )
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    return create_model("Options", __config__=config, **parameters)


def image_body() -> dict[str, Any]:
    """Return the OpenAPI description of the request bodies that `receive_image` accepts."""
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"image": file}, "required": ["image"]}
    body = {"multipart/form-data": {"schema": form}, "image/*": {"schema": file}}
    return {"requestBody": {"required": True, "content": body}}


def json_body(model: "type[pydantic.BaseModel]") -> dict[str, Any]:
    """Return the OpenAPI description of a body that `parse_body` accepts.

    The body is not declared as a parameter, because FastAPI would read one of any size before
    validating it. The schemas of list items are inlined, because only FastAPI can add schemas to
    the components.
    """
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    for field in schema["properties"].values():
        if "$ref" in (items := field.get("items", {})):
            field["items"] = parts[items["$ref"].split("/")[-1]]
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def parse_body(content: bytes, model: "type[pydantic.BaseModel]") -> dict[str, Any]:
    """Return the fields of a body of JSON; raise RequestValidationError if it is invalid."""
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError

    try:
        return model.model_validate_json(content).model_dump()
    except ValidationError as error:
        known = list(model.model_fields)
        errors = [
            {**each, "loc": ("body", *each["loc"]), "known": known} for each in error.errors()
        ]
        raise RequestValidationError(errors) from error


async def receive_image(request: "Request", limits: Limits) -> bytes:
    """Return the bytes of a request's image, which is the body or the only file in a form.

    Raises HTTPException if the request does not contain an image, if its form cannot be read, or if
    the image is too large.
    """
    from fastapi import HTTPException

    accepted = f"at most {limits.max_bytes:,} bytes are accepted"
    too_large = f"the image is too large: {accepted}; send a smaller one"
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    most = limits.max_bytes + FORM_BYTES * is_form
    content = await receive_body(request, most, too_large)
    image = await _read_form(request, content) if is_form else content
    if not image:
        raise HTTPException(
            422, "the request contains no image; send it as the body or as the form file image"
        )
    if len(image) > limits.max_bytes:
        raise HTTPException(413, too_large)
    return image


async def receive_body(request: "Request", most: int, too_large: str) -> bytes:
    """Return the body of a request; raise HTTPException(413, too_large) above `most` bytes.

    A body whose stated length exceeds the limit is not read; any other body is read until it
    exceeds the limit.
    """
    from fastapi import HTTPException

    if int(request.headers.get("content-length", 0)) > most:
        raise HTTPException(413, too_large)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise HTTPException(413, too_large)
    return bytes(content)


async def _read_form(request: "Request", content: bytes) -> bytes:
    """Return the form file "image"; its old name "picture" is deprecated but accepted."""
    from fastapi import HTTPException
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncIterator[bytes]:
        yield content

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=0)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(422, FORM_ERROR) from error
    try:
        file = form.get("image") or form.get("picture")
        if not isinstance(file, UploadFile):
            raise HTTPException(422, FORM_ERROR)
        return await file.read()
    finally:
        await form.close()


def answer(caption: "Caption") -> dict[str, Any]:
    """Convert a caption to JSON; `answer_model` describes the keys."""
    return caption.to_dict(attention=True, dimmed=True)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI descriptions of error responses, by status code."""
    from pydantic import BaseModel, Field

    class Error(BaseModel):
        detail: str = Field(description="what went wrong, in one sentence")

    return {each: {"model": Error, "description": ERRORS[each]} for each in statuses}


def health_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the response of /health, for OpenAPI."""
    from pydantic import BaseModel, Field

    class Health(BaseModel):
        status: Literal["ok", "stopping"]
        has_captions: bool = Field(description="whether the service captions images")
        has_attention: bool = Field(description="whether captions have attention maps")
        has_search: bool = Field(description="whether the service searches indexes")
        has_relations: bool = Field(description="whether the service relates images and texts")
        limits: Limits

    return Health


def answer_model() -> "type[pydantic.BaseModel]":
    """Build a pydantic model of the result of `answer`, for OpenAPI."""
    from pydantic import BaseModel, Field

    class Word(BaseModel):
        word: str = Field(description="the word; empty for the end of the caption")
        log_prob: float = Field(description="log-probability in nats")

    class Answer(BaseModel):
        caption: str = Field(description="text of the caption")
        score: float = Field(description="log-probability of the caption, in nats")
        words: list[str] = Field(description="words of the caption")
        log_probs: list[float] = Field(
            description="log-probability of each word, given the previous words, in nats, and, "
            "unless max_length truncated the caption, of its end"
        )
        dimmed: list[bool] = Field(
            description="for each word, whether it is a function word, such as a or of, which "
            "names nothing visible"
        )
        attention: list[list[list[float]]] | None = Field(
            description="attention map of each word, as rows from the top; each map sums to 1; "
            "null for a model without attention"
        )
        offset: float = Field(
            description="distance of the attention values from the centres of their cells, down "
            "and to the right, as a fraction of a cell"
        )
        word_alternatives: list[list[Word]] | None = Field(
            None,
            description="for each word, alternative words for its position, most likely first; "
            "missing unless requested",
        )
        alternatives: list["Answer"] | None = Field(
            None,
            description="the other captions, best first; missing if there are none",
        )

    return Answer
