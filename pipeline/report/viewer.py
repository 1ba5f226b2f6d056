"""Serve the pages and recordings of a run to a browser on this machine, and save what is corrected there.

Only 127.0.0.1 is listened on. Every address begins with a random token, so that neither other users of the machine nor
pages of other sites, which a browser may let reach this address, get anything. Files come from the folder of the run
alone, and the recordings from where its pages play them; `corrections.json` in that folder is all that is written.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from emopipe.errors import CorrectionsError, EmopipeError, InputNotFound, PortUnavailable
from emopipe.pipeline.corrections.documents import MOST_BYTES
from emopipe.pipeline.corrections.saved import as_saved, parse_recording, read_saved, save, version_of
from emopipe.pipeline.media.finding import RECORDING_SUFFIXES
from emopipe.pipeline.report.batch_page import SUMMARY
from emopipe.pipeline.report.clip_page import curves_on, data_on
from emopipe.pipeline.report.corrected import ClipDocuments
from emopipe.pipeline.report.outputs import read_manifest, render_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST: Final = "127.0.0.1"
#: Names by which a browser asks for this machine; another one is somebody's who wants to get at it from outside.
HOSTS: Final = (HOST, "localhost")
#: Where pages find their recording and their corrections, below the token.
MEDIA, CORRECTIONS = "_media", "_corrections"
#: What every answer tells the browser.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: How long a recording that is being played may hold up the end, in seconds.
_PATIENCE: Final = 1


def serve(folder: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve the results of a run until the process is interrupted.

    Args:
        folder: of the run.
        port: 0 for any that is free.
        ready: told the address of the first page.

    Raises:
        InputNotFound: no run has left results there; OutputError when its manifest cannot be used;
            PortUnavailable when the port cannot be listened on.
    """
    import uvicorn

    start = first_page(folder)
    token = secrets.token_urlsafe(32)
    with listening(port) as listener:
        config = uvicorn.Config(
            viewer(folder, token),
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_PATIENCE,
        )
        ready(f"http://{HOST}:{listener.getsockname()[1]}/{token}/{start}")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def listening(port: int) -> socket.socket:
    """A socket that nobody but this machine reaches.

    Raises:
        PortUnavailable: another program has the port, or only the administrator may use it.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise PortUnavailable(f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}") from None


def first_page(folder: Path) -> str:
    """The page about all recordings, or the one of the only recording, as an address.

    Raises:
        InputNotFound: no run has left pages there.
    """
    names = [entry["outputs"] for entry in read_manifest(folder).values() if entry["outputs"]]
    if (folder / SUMMARY).is_file():
        return SUMMARY
    if not names:
        raise InputNotFound("the run has left no page here: all of its files failed", path=folder)
    return _quoted(f"{names[0]}.html")


def viewer(folder: Path, token: str) -> Starlette:
    """The application that serves a run.

    Args:
        folder: of the run.
        token: with which every address begins.
    """
    pages = _Pages(folder)
    routes = [
        Route("/{name}.html", pages.page),
        Route(f"/{MEDIA}/{{name}}", pages.media),
        Route(f"/{CORRECTIONS}/{{name}}", pages.corrections, methods=["GET"]),
        Route(f"/{CORRECTIONS}/{{name}}", pages.save, methods=["PUT"]),
        Route("/", pages.start),
        Mount("/", pages.static),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(_Guard, token=token),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False),
        ],
        exception_handlers={EmopipeError: _told},
    )


class _Guard:
    """Lets nothing through without the token, nor what a page of another site sends, and adds :data:`HEADERS`."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            return
        given = scope["path"].removeprefix("/").partition("/")[0].encode("utf-8", "surrogatepass")
        app: ASGIApp = self._app
        if scope["path"] == "/favicon.ico":  # browsers ask for it, whatever a page says
            app = Response(status_code=204)
        elif not hmac.compare_digest(given, self._token) or not _is_own(dict(scope["headers"])):
            app = PlainTextResponse("Open the address that emopipe view has printed.", 403)
        await app(scope, receive, with_headers)


def _is_own(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request comes from one of our pages, or was typed in."""
    origin = headers.get(b"origin")
    return origin is None or origin == b"http://" + headers.get(b"host", b"")


async def _told(request: Request, error: Exception) -> Response:
    """A coded error for the script of a page, or for people."""
    assert isinstance(error, EmopipeError)
    status = 404 if isinstance(error, InputNotFound) else 422 if isinstance(error, CorrectionsError) else 500
    return JSONResponse({"code": error.code, "what": error.what, "hint": error.hint or error.advice}, status)


class _Pages:
    """What the addresses of a run are answered with.

    Args:
        folder: of the run; what is added to it is found.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.static = StaticFiles(directory=folder, follow_symlink=False)

    def start(self, request: Request) -> Response:
        """The address without a page."""
        return RedirectResponse(str(request.url.replace(path=f"{request.url.path}{first_page(self._folder)}")))

    async def page(self, request: Request) -> Response:
        """A clip's page, made so that it plays and saves here; other pages as they lie in the folder."""
        name = request.path_params["name"]
        text = await run_in_threadpool(self._rendered, name)
        if text is None:
            return await self.static.get_response(f"{name}.html", request.scope)
        return HTMLResponse(text)

    def _rendered(self, name: str) -> str | None:
        clips = ClipDocuments(self._folder)
        if name not in clips.media:
            return None
        curves = curves_on(self._folder / f"{name}.html")
        address = _quoted(name)
        return render_page(
            clips.read(name), f"{MEDIA}/{address}", name=name, curves=curves, server=f"{CORRECTIONS}/{address}"
        )

    def media(self, request: Request) -> Response:
        """A clip's recording, from where its page in the folder plays it."""
        page = self._folder / f"{self._clip(request)}.html"
        path = linked_file(data_on(page).get("link", ""), self._folder)
        if path.suffix.lower() not in RECORDING_SUFFIXES or not path.is_file():
            raise HTTPException(404)
        return FileResponse(path)

    def corrections(self, request: Request) -> Response:
        """What was saved of a clip."""
        return JSONResponse([as_saved(one) for one in read_saved(self._folder, self._clip(request))])

    async def save(self, request: Request) -> Response:
        """Save what was corrected, unless something else was saved since the page has looked."""
        name, version = await run_in_threadpool(self._clip, request), request.headers.get("if-match")
        if version is None:
            raise HTTPException(428)
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise HTTPException(415)
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MOST_BYTES:
                raise HTTPException(413)
        given = parse_recording(bytes(content), name)
        other = await run_in_threadpool(save, self._folder, given, version.strip('"'))
        return JSONResponse({"etag": version_of(given)}) if other is None else JSONResponse(as_saved(other), 412)

    def _clip(self, request: Request) -> str:
        """The name of the clip that an address is about."""
        name: str = request.path_params["name"]
        if name not in ClipDocuments(self._folder).media:
            raise HTTPException(404)
        return name


def linked_file(link: str, folder: Path) -> Path:
    """The file that a page in a folder links to.

    Args:
        link: address, as :func:`~emopipe.pipeline.report.outputs.media_link` makes it.
        folder: in which the page lies.
    """
    if link.startswith("file:"):
        return Path(url2pathname(urlsplit(link).path))
    return folder / os.fsdecode(unquote_to_bytes(link))


def _quoted(name: str) -> str:
    return quote(os.fsencode(name), safe="")
