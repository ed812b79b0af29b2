"""The service as an ASGI application: captions, health, metrics, errors, headers.

Search is in `search_api`, relations are in `relation_api`, the pages in `pages`. FastAPI is
imported inside functions because the rest of the library works without it.
"""

import asyncio
import json
import logging
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from ..caption import Caption
from ..captioner import Captioner
from ..data.images import ImageInput, read_image
from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..linker import Linker
from ..models.linking.spatial import SpatialEmbedding
from ..options import did_you_mean, to_dict
from ..prefetch import WORKERS
from ..relation import RelationClassifier
from .access import Access, Guard, token_check
from .batcher import Batcher, Closed, QueueFull
from .collections import Collection
from .pages import add_pages
from .projection_api import PROJECTION, ROWS, add_projection
from .relation_api import RELATE, add_relations
from .schemas import (
    Limits,
    answer,
    answer_model,
    error_responses,
    health_model,
    image_body,
    query_model,
    receive_image,
)
from .search_api import SEARCH, add_search, add_thumbnails
from .searcher import THUMBNAILS, Searcher
from .spatial_api import LABEL, LOCALIZE, PAINT, add_spatial
from .telemetry import Telemetry
from .thumbnails import ThumbnailStore

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Captions = Batcher[ImageInput, DecodingOptions, Caption]
CAPTION = "/api/caption"
KINDS = {  # of the requests that are counted, besides thumbnails
    **{CAPTION: "caption", SEARCH: "search", PAINT: "search"},
    **{LABEL: "label", LOCALIZE: "label", PROJECTION: "projection", ROWS: "projection"},
    RELATE: "relation",
}
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}

log = logging.getLogger(__name__)


def create_app(
    captioner: Captioner | None,
    limits: Limits | None = None,
    access: Access | None = None,
    collections: Sequence[Collection] = (),
    thumbnails: ThumbnailStore | None = None,
    relations: RelationClassifier | None = None,
) -> "FastAPI":
    """Create the service as a FastAPI application, for `server.serve` or any other ASGI server.

    captioner: captions images; None serves no captions. collections: the indexes to search, the
    default first. access: which requests are accepted. thumbnails: where thumbnails are stored;
    None creates them anew for each request. relations: predicts how an image and a text relate; the
    words that the image supports are found by the spatial model of the first index that has one.
    If `access` is None, only requests to the hosts localhost, 127.0.0.1 and ::1 are answered.
    After `app.state.close()`, new requests are rejected, but those in progress are still answered.
    """
    from fastapi import FastAPI

    limits, access = limits or Limits(), access or Access()
    telemetry = Telemetry()
    searcher = Searcher(collections, limits, access) if collections or relations else None
    batcher = _caption_batcher(captioner, limits, telemetry) if captioner else None
    batchers: list[Batcher[Any, Any, Any]] = [batcher] if batcher else []
    if searcher:
        batchers.append(searcher.batcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for each in batchers:
            each.start()
        yield
        for each in batchers:
            await asyncio.to_thread(each.join)

    def close() -> None:
        for each in batchers:
            each.close()

    app = FastAPI(
        title="captioner",
        version="3",  # of the API, not of the library
        description=_describe(captioner, collections, relations),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=error_responses(421),
    )
    app.state.close = close
    policy = add_pages(
        app,
        captions=captioner is not None,
        search=bool(collections),
        relations=relations is not None,
    )
    require_token = token_check(access.token)
    if captioner and batcher:
        _add_caption(app, captioner, batcher, limits, require_token)
    if searcher and relations:
        add_relations(app, relations, _spatial_linker(collections), searcher, access)
    if searcher and collections:
        add_search(app, searcher, access)
        add_thumbnails(app, searcher, access, thumbnails)
        add_spatial(app, searcher, access)
        add_projection(app, searcher, access)
    _add_health(
        app,
        captioner,
        batchers,
        limits,
        has_search=bool(collections),
        has_relations=relations is not None,
    )
    _add_metrics(app, batchers, telemetry, require_token)
    _add_error_handlers(app, limits)
    app.add_middleware(Guard, access=access)
    app.add_middleware(
        _Middleware,
        headers={**SECURITY_HEADERS, "content-security-policy": policy},
        telemetry=telemetry,
    )
    return app


def _spatial_linker(collections: Sequence[Collection]) -> Linker | None:
    """Return the model of the first index that was written with a spatial one; None without one."""
    linkers = (each.linker for each in collections)
    return next((each for each in linkers if isinstance(each.model, SpatialEmbedding)), None)


def _describe(
    captioner: Captioner | None,
    collections: Sequence[Collection],
    relations: RelationClassifier | None,
) -> str:
    sentences = []
    if captioner:
        sentences.append(
            "Describes an image in one sentence and shows which part of the image the model "
            "attended to for each word."
        )
    if relations:
        sentences.append("Predicts how an image and a text relate.")
    if collections:
        sentences.append("Finds the images or texts of an index that match words and images.")
    return " ".join(sentences)


def _caption_batcher(captioner: Captioner, limits: Limits, telemetry: Telemetry) -> Captions:
    def work(images: Sequence[ImageInput], options: DecodingOptions) -> list[Caption]:
        return captioner.caption(list(images), batch_size=len(images), **to_dict(options))

    return Batcher(
        work,
        batch_size=limits.batch_size,
        capacity=limits.queue,
        on_batch=telemetry.batches.observe,
    )


def _add_caption(
    app: "FastAPI",
    captioner: Captioner,
    batcher: Captions,
    limits: Limits,
    require_token: Sequence[Any],
) -> None:
    from fastapi import HTTPException, Query, Request, Response

    readers = ThreadPoolExecutor(WORKERS, "reader")
    Options = query_model(limits)  # noqa: N806  a class

    def read(content: bytes) -> ImageInput:
        transform = captioner.transform
        return transform.squash(read_image(content, limits.max_pixels, transform.least))

    @app.post(
        CAPTION,
        dependencies=require_token,
        summary="Caption an image",
        description="The image is the body of the request or the form file named image, in JPEG, "
        f"PNG, BMP, GIF, WebP or TIFF format, with at most {limits.max_bytes:,} bytes and "
        f"{limits.max_pixels:,} pixels.",
        responses={
            200: {"model": answer_model(), "description": "the caption"},
            **error_responses(403, 413, 422, 429, 500, 503, 504, *[401] * bool(require_token)),
        },
        openapi_extra=image_body(),
    )
    async def caption(request: Request, query: Annotated[Options, Query()]) -> Response:  # type: ignore[valid-type]
        decoding = DecodingOptions(**dict(query))
        batcher.check_free()  # without reading an image in vain
        async with asyncio.timeout(limits.timeout):
            content = await receive_image(request, limits)
            with batcher.admit():  # only now, so that slow uploads take no place
                image = await asyncio.get_running_loop().run_in_executor(readers, read, content)
                try:
                    result = await asyncio.wrap_future(batcher.submit(image, decoding))
                except (Closed, TimeoutError, InputError):
                    raise
                except Exception as error:
                    log.exception("an image could not be captioned")
                    raise HTTPException(500, "the image could not be captioned") from error
        return Response(json.dumps(answer(result)), media_type="application/json")


def _add_health(
    app: "FastAPI",
    captioner: Captioner | None,
    batchers: Sequence[Batcher[Any, Any, Any]],
    limits: Limits,
    *,
    has_search: bool,
    has_relations: bool,
) -> None:
    from fastapi import Response

    model = health_model()

    @app.head("/health", include_in_schema=False)
    @app.get(
        "/health",
        summary="Report whether the service accepts requests, and its limits",
        response_model=model,
        response_description="the service accepts requests",
        responses={503: {"model": model, "description": "the service is stopping"}},
    )
    async def health(response: Response) -> dict[str, Any]:
        closing = any(each.closing for each in batchers)
        response.status_code = 503 if closing else 200
        return {
            "status": "stopping" if closing else "ok",
            "has_captions": captioner is not None,
            "has_attention": captioner is not None and captioner.model.has_attention,
            "has_search": has_search,
            "has_relations": has_relations,
            "limits": asdict(limits),
        }


def _add_metrics(
    app: "FastAPI",
    batchers: Sequence[Batcher[Any, Any, Any]],
    telemetry: Telemetry,
    require_token: Sequence[Any],
) -> None:
    from fastapi import Response

    text = {"text/plain": {"schema": {"type": "string"}}}

    @app.head("/metrics", include_in_schema=False, dependencies=require_token)
    @app.get(
        "/metrics",
        dependencies=require_token,
        response_class=Response,
        response_description="counts and durations",
        responses={200: {"content": text}, **error_responses(*[401] * bool(require_token))},
        summary="Counts and durations in Prometheus text format",
    )
    async def metrics() -> Response:
        values = telemetry.text(
            waiting=sum(each.waiting for each in batchers),
            unanswered=sum(each.admitted for each in batchers),
        )
        return Response(values, media_type="text/plain; version=0.0.4")


def _add_error_handlers(app: "FastAPI", limits: Limits) -> None:
    """Answer expected exceptions with the JSON {"detail": message}; others end with status 500."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.requests import ClientDisconnect

    def reply(status: int, message: str, **headers: str) -> JSONResponse:
        return JSONResponse({"detail": message}, status, headers)

    async def handle(request: Request, error: Exception) -> JSONResponse:
        match error:
            case RequestValidationError():
                return reply(422, _describe_invalid(error.errors()[0], _parameters(request)))
            case QueueFull():
                message = f"the request queue is full ({limits.queue} requests); try again soon"
                return reply(429, message, **{"Retry-After": "1"})
            case Closed():
                headers = {"Retry-After": "5", "Connection": "close"}
                return reply(503, "the service is stopping; try again later", **headers)
            case TimeoutError():
                what = "captioning" if request.url.path == CAPTION else "the request"
                return reply(504, f"{what} took longer than {limits.timeout:g} seconds; try again")
            case ClientDisconnect():  # the client will not receive this
                return reply(400, "the connection was closed before the request was complete")
        return reply(422, str(error))

    for kind in (
        RequestValidationError,
        QueueFull,
        Closed,
        TimeoutError,
        ClientDisconnect,
        InputError,
    ):
        app.add_exception_handler(kind, handle)


def _parameters(request: "Request") -> list[str]:
    """Return the names of the query parameters of the requested endpoint."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    names: list[str] = []
    for parameter in getattr(dependant, "query_params", ()):
        model = getattr(parameter.field_info, "annotation", None)
        names += getattr(model, "model_fields", {parameter.alias: None})
    return names


def _describe_invalid(error: Mapping[str, Any], parameters: Iterable[str]) -> str:
    """Return an error of pydantic as one sentence that begins with the place of the value.

    parameters: known query parameters; "known" in the error replaces them for a body.
    """
    place = ".".join(map(str, error["loc"][1:])) or "the body"
    value = f", got {error['input']!r}" if isinstance(error["input"], str) else ""
    advice = ""
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 2:
        advice = did_you_mean(str(error["loc"][-1]), error.get("known", parameters))
    return f"{place}: {error['msg']}{value}"[:200] + advice[:100]


class _Middleware:
    """ASGI middleware that adds headers to all responses, and counts and times them."""

    def __init__(self, app: Any, headers: dict[str, str], telemetry: Telemetry) -> None:
        self.app, self.telemetry = app, telemetry
        self.headers = [(key.encode(), value.encode()) for key, value in headers.items()]

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        started = time.perf_counter()

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                message["headers"] = [*given, *self.headers]
                if not any(name == b"cache-control" for name, _ in given):
                    message["headers"].append((b"cache-control", b"no-store"))
                kind = _kind(scope["path"])
                if kind:
                    taken = time.perf_counter() - started
                    self.telemetry.count(kind, message["status"], taken)
            await send(message)

        await self.app(scope, receive, send_observed)


def _kind(path: str) -> str | None:
    """Return the kind of request to count for a path; None if the path is not counted."""
    if path.startswith(f"{THUMBNAILS}/"):
        return "thumbnail"
    return KINDS.get(path)
