"""The service as an ASGI application: pages, captions, health, metrics, errors.

FastAPI is imported inside functions because the rest of the library works without it.
"""

import asyncio
import base64
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from ..caption import Caption
from ..captioner import Captioner
from ..data.images import ImageInput, read_image
from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..options import to_dict
from ..prefetch import WORKERS
from .access import Access, Guard, token_check
from .batcher import Batcher, Closed, QueueFull
from .schemas import (
    Limits,
    answer,
    answer_model,
    error_responses,
    health_model,
    query_model,
    receive_image,
)
from .telemetry import Telemetry

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
CAPTION = "/api/caption"
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}

log = logging.getLogger(__name__)


def create_app(
    captioner: Captioner, limits: Limits | None = None, access: Access | None = None
) -> "FastAPI":
    """Create the service as a FastAPI application, for `server.serve` or any other ASGI server.

    If `access` is None, only requests to the hosts localhost, 127.0.0.1 and ::1 are answered.
    `app.state.batcher.close()` rejects new requests; requests in progress are still answered.
    """
    from fastapi import FastAPI

    limits, access = limits or Limits(), access or Access()
    telemetry = Telemetry()

    def work(images: Sequence[ImageInput], options: DecodingOptions) -> list[Caption]:
        return captioner.caption(list(images), batch_size=len(images), **to_dict(options))

    batcher = Batcher(
        work,
        batch_size=limits.batch_size,
        capacity=limits.queue,
        on_batch=telemetry.batches.observe,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await asyncio.to_thread(batcher.join)

    app = FastAPI(
        title="captioner",
        version="2",  # of the API, not of the library
        description="Describes an image in one sentence and shows to which part of the image the "
        "model attended for each word.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=error_responses(421),
    )
    app.state.batcher = batcher
    policy = _add_pages(app)
    require_token = token_check(access.token)
    _add_caption(app, captioner, batcher, limits, require_token)
    _add_health(app, captioner, batcher, limits)
    _add_metrics(app, batcher, telemetry, require_token)
    _add_error_handlers(app, limits)
    app.add_middleware(Guard, access=access)
    app.add_middleware(
        _Middleware,
        headers={**SECURITY_HEADERS, "content-security-policy": policy},
        telemetry=telemetry,
    )
    return app


def _add_caption(
    app: "FastAPI",
    captioner: Captioner,
    batcher: Batcher,
    limits: Limits,
    require_token: Sequence[Any],
) -> None:
    from fastapi import HTTPException, Query, Request, Response

    readers = ThreadPoolExecutor(WORKERS, "reader")
    Options = query_model(limits)  # noqa: N806  a class
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "properties": {"image": file}, "required": ["image"]}
    body = {"multipart/form-data": {"schema": form}, "image/*": {"schema": file}}

    def read(content: bytes) -> ImageInput:
        return captioner.transform.squash(read_image(content, limits.max_pixels))

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
        openapi_extra={"requestBody": {"required": True, "content": body}},
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


def _add_health(app: "FastAPI", captioner: Captioner, batcher: Batcher, limits: Limits) -> None:
    from fastapi import Response

    model = health_model()

    @app.head("/health", include_in_schema=False)
    @app.get(
        "/health",
        summary="Whether the service accepts requests, and its limits",
        response_model=model,
        response_description="the service accepts requests",
        responses={503: {"model": model, "description": "the service is stopping"}},
    )
    async def health(response: Response) -> dict[str, Any]:
        response.status_code = 503 if batcher.closing else 200
        status = "stopping" if batcher.closing else "ok"
        return {
            "status": status,
            "has_attention": captioner.model.has_attention,
            "limits": asdict(limits),
        }


def _add_metrics(
    app: "FastAPI", batcher: Batcher, telemetry: Telemetry, require_token: Sequence[Any]
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
        values = telemetry.text(waiting=batcher.waiting, unanswered=batcher.admitted)
        return Response(values, media_type="text/plain; version=0.0.4")


def _add_pages(app: "FastAPI") -> str:
    """Add the pages and return a Content-Security-Policy that allows only their own code."""
    sources: dict[str, list[str]] = {"script": [], "style": []}
    for path, name in (("/", "page.html"), ("/docs", "docs.html")):
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        for tag, hashes in sources.items():
            for content in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL):
                digest = hashlib.sha256(content.encode()).digest()
                hashes.append(f"'sha256-{base64.b64encode(digest).decode()}'")
        app.add_route(path, partial(_page, text))
    return (
        f"default-src 'none'; script-src {' '.join(sources['script'])}; "
        f"style-src {' '.join(sources['style'])}; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _page(text: str, request: "Request") -> "Response":  # noqa: ARG001  starlette passes it
    from fastapi.responses import HTMLResponse

    return HTMLResponse(text)


def _add_error_handlers(app: "FastAPI", limits: Limits) -> None:
    """Answer every error with the JSON {"detail": message}."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.requests import ClientDisconnect

    def reply(status: int, message: str, **headers: str) -> JSONResponse:
        return JSONResponse({"detail": message}, status, headers)

    async def handle(_: Request, error: Exception) -> JSONResponse:
        match error:
            case RequestValidationError():
                first = error.errors()[0]
                value = f", got {first['input']!r}" if isinstance(first["input"], str) else ""
                return reply(422, f"{first['loc'][-1]}: {first['msg']}{value}"[:300])
            case QueueFull():
                message = f"the request queue is full ({limits.queue} requests); try again soon"
                return reply(429, message, **{"Retry-After": "1"})
            case Closed():
                headers = {"Retry-After": "5", "Connection": "close"}
                return reply(503, "the service is stopping", **headers)
            case TimeoutError():
                return reply(
                    504, f"captioning took longer than {limits.timeout:g} seconds; try again"
                )
            case ClientDisconnect():  # the client will not receive this
                return reply(400, "the connection was closed before the image was complete")
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


class _Middleware:
    """ASGI middleware that adds headers to all responses and counts and times caption requests."""

    def __init__(self, app: Any, headers: dict[str, str], telemetry: Telemetry) -> None:
        self.app, self.telemetry = app, telemetry
        self.headers = [(key.encode(), value.encode()) for key, value in headers.items()]

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        started = time.perf_counter()

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
                if scope["path"] == CAPTION:
                    self.telemetry.answers[message["status"]] += 1
                    if message["status"] == 200:
                        self.telemetry.seconds.observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, send_observed)
