"""HTTP of the pages' files."""

import re
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse

from runmirror.errors import EndpointNotFound
from runmirror.routing import Permission, route
from runmirror.ui.folder import HOW_TO_GET_IT, INDEX

router = APIRouter(tags=["ui"])

# Said here, because the table of the machine may know none of them.
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".cjs": "text/javascript",
    ".css": "text/css", ".json": "application/json", ".map": "application/json", ".txt": "text/plain",
    ".svg": "image/svg+xml", ".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
    ".ico": "image/x-icon", ".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf",
    ".eot": "application/vnd.ms-fontobject", ".wasm": "application/wasm",
}  # fmt: skip
_HASHED = re.compile(r"\.[0-9a-f]{8,32}\.")  # the name changes with the content: main.c2f5f8d4.js
_FOR_EVER = "public, max-age=31536000, immutable"


@route(router, "GET", "/", permission=Permission.PUBLIC, response_class=Response)
@route(router, "HEAD", "/", permission=Permission.PUBLIC, response_class=Response)
async def index(request: Request) -> Response:
    """The page that loads all others, or one sentence that says how to get it."""
    files: dict[str, Path] = request.app.state.ui
    if INDEX not in files:
        return PlainTextResponse(HOW_TO_GET_IT, headers={"Cache-Control": "no-store"})
    return FileResponse(files[INDEX], media_type="text/html", headers={"Cache-Control": "no-store"})


@route(router, "GET", "/static-files/{path:path}", permission=Permission.PUBLIC, response_class=Response)
@route(router, "HEAD", "/static-files/{path:path}", permission=Permission.PUBLIC, response_class=Response)
async def static_file(request: Request, path: str) -> Response:
    """A script, style, font or picture of the pages."""
    files: dict[str, Path] = request.app.state.ui
    file = files.get(path)
    if file is None:
        raise EndpointNotFound(f"No file {path[:200]!r} among the pages")
    media_type = _TYPES.get(file.suffix, "application/octet-stream")
    caching = _FOR_EVER if _HASHED.search(file.name) else "no-cache"
    answer = FileResponse(file, media_type=media_type, headers={"Cache-Control": caching}, stat_result=file.stat())
    if answer.headers["etag"] == request.headers.get("if-none-match"):
        return Response(status_code=304, headers={"ETag": answer.headers["etag"], "Cache-Control": caching})
    return answer
