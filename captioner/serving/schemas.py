"""What the service takes and gives: limits, options in a query, an image in a body, a caption as
JSON. Nothing here captions.

FastAPI is imported where it is used: nothing else of the library needs it.
"""

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from ..decoding.options import BEAM_SIZE, DecodingOptions
from ..errors import InputError
from ..options import check_at_least, option
from ..plots.overlays import is_dimmed

if TYPE_CHECKING:
    import pydantic
    from fastapi import Request

    from ..caption import Caption


MOST_ALTERNATIVES = 20  # largest word_alternatives that may be asked for
MOST_SAMPLES = 50  # largest consensus
FORM = 2**16  # bytes that a form may take beside its image


@dataclass(frozen=True)
class Limits:
    """What one request, and all together, may cost."""

    max_bytes: int = option(16 * 2**20, "bytes of a request's image")
    max_pixels: int = option(50_000_000, "pixels of an image")
    max_beam_size: int = option(10, "largest beam_size and num_captions")
    max_words: int = option(50, "largest max_length")
    queue: int = option(128, "requests taken in at once; more get 429")
    batch_size: int = option(32, "images captioned together at most")
    timeout: float = option(30.0, "seconds until a request is given up")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "max_bytes", "max_pixels", "queue", "batch_size")
        check_at_least(self, BEAM_SIZE, "max_beam_size")
        check_at_least(self, DecodingOptions().max_length, "max_words")
        if not 0 < self.timeout < math.inf:
            raise InputError(f"timeout must be above 0, got {self.timeout}")


def query_model(limits: Limits) -> "type[pydantic.BaseModel]":
    """The fields of DecodingOptions as a query, each with its help and the service's limits."""
    from pydantic import ConfigDict, Field, create_model

    most = {
        "beam_size": limits.max_beam_size,
        "num_captions": limits.max_beam_size,
        "max_length": limits.max_words,
        "word_alternatives": MOST_ALTERNATIVES,
        "consensus": MOST_SAMPLES,
    }
    hints = get_type_hints(DecodingOptions)
    wanted: dict[str, Any] = {}
    for each in fields(DecodingOptions):
        choices = each.metadata["choices"]
        wanted[each.name] = (
            Literal[tuple(choices)] if choices else hints[each.name],
            Field(each.default, description=each.metadata["help"], le=most.get(each.name)),
        )
    return create_model("Options", __config__=ConfigDict(extra="forbid"), **wanted)


async def receive_image(request: "Request", limits: Limits) -> bytes:
    """The bytes of the image in a request: its body, or the one file of a form.

    Never holds more than the limit. Raises HTTPException.
    """
    from fastapi import HTTPException

    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limits.max_bytes + FORM * is_form:
            raise HTTPException(413, f"an image has at most {limits.max_bytes:,} bytes")
    image = await _in_form(request, content) if is_form else bytes(content)
    if not image:
        raise HTTPException(422, "there is no image in the request")
    if len(image) > limits.max_bytes:
        raise HTTPException(413, f"an image has at most {limits.max_bytes:,} bytes")
    return image


async def _in_form(request: "Request", content: bytes | bytearray) -> bytes:
    from fastapi import HTTPException
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncIterator[bytes]:
        yield bytes(content)

    wanted = "a form holds one file, called image; options belong in the query"
    parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=0)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(422, wanted) from error
    try:
        file = form.get("image")
        if not isinstance(file, UploadFile):
            raise HTTPException(422, wanted)
        return await file.read()
    finally:
        await form.close()


def answer(caption: "Caption") -> dict[str, Any]:
    """A caption as JSON holds it; `answer_model` says what the parts are."""
    attention = caption.attention
    return {
        "text": caption.text,
        "words": list(caption.words),
        "function_words": [is_dimmed(word) for word in caption.words],
        "probabilities": [round(math.exp(p), 4) for p in caption.log_probs[: len(caption.words)]],
        "score": round(caption.score, 4),
        "attention": None if attention is None else attention.astype(float).round(4).tolist(),
        "offset": caption.offset,
        "word_alternatives": [
            [{"word": word, "probability": round(math.exp(p), 4)} for word, p in others]
            for others in caption.word_alternatives
        ],
        "alternatives": [answer(other) for other in caption.alternatives],
    }


def answer_model() -> "type[pydantic.BaseModel]":
    """What `answer` gives, for the OpenAPI page."""
    from pydantic import BaseModel, Field

    class Word(BaseModel):
        word: str = Field(description="empty where the caption would have ended")
        probability: float

    class Answer(BaseModel):
        text: str
        words: list[str]
        function_words: list[bool] = Field(
            description="whether each word is one like a and of, at which there is little to see"
        )
        probabilities: list[float] = Field(description="of each word, given those before it")
        score: float = Field(description="log-probability of the whole caption, in nats")
        attention: list[list[list[float]]] | None = Field(
            description="for each word where the model looked: rows from the top, summing to 1"
        )
        offset: float = Field(
            description="how far below and right of its cell's middle a value stands, in cells"
        )
        word_alternatives: list[list[Word]] = Field(
            description="for each word the likeliest others in its place, likeliest first"
        )
        alternatives: list["Answer"] = Field(description="the rest of num_captions, best first")

    return Answer
