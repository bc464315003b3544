"""A file as an HTTP answer: ranges, conditions, and headers that keep a browser from running it."""

import mimetypes
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from runmirror.artifacts.files import Opened, Stat, Store

# What MLflow's pages show as text, whatever the machine's MIME table says (`mlflow.utils.mime_type_utils`).
_TEXT = {
    "txt", "log", "err", "cfg", "conf", "cnf", "cf", "ini", "properties", "prop", "hocon", "toml", "yaml", "yml", "xml",
    "json", "js", "py", "py3", "csv", "tsv", "md", "rst", "ipynb", "MLmodel", "MLproject",
}  # fmt: skip
_ONE_RANGE = re.compile(r"^bytes=\s*(\d{0,18})-(\d{0,18})\s*$", re.IGNORECASE)
_TOKEN = re.compile(r"^[A-Za-z0-9!#$&+.^_`|~-]+$")
_REOPENINGS = 5


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """A range that begins behind the end of the file."""


def requested_span(range_header: str | None, size_bytes: int) -> Span | None:
    """The one range asked for; None for the whole file, which also answers ranges that are malformed or several.

    Raises `Unsatisfiable`. RFC 9110 §14.2 lets a server pass over what it does not understand.
    """
    match = _ONE_RANGE.match(range_header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        if int(last) == 0 or size_bytes == 0:
            raise Unsatisfiable
        return Span(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise Unsatisfiable
    return Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)


def content_type(path: str) -> str:
    name = path.rpartition("/")[2]
    extension = name.rpartition(".")[2]
    if extension in _TEXT:
        return "text/plain"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def attachment(path: str) -> str:
    """`Content-Disposition` as RFC 6266 has it, with the RFC 5987 form for names that are not plain ASCII."""
    name = path.rpartition("/")[2]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii") or "download"
    quoted = plain if _TOKEN.match(plain) else '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if plain == name:
        return f"attachment; filename={quoted}"
    return f"attachment; filename={quoted}; filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}"


async def answer_head(store: Store, path: str, asked: Headers) -> Response:
    """The headers a download of the whole file has, or word that the client has it already."""
    stat = await store.stat(path)
    if _named(asked.get("if-none-match"), stat.etag):
        return Response(status_code=304, headers={"ETag": stat.etag})
    return Response(headers={**_headers(path, stat.etag), "Content-Length": str(stat.size_bytes)})


async def answer_download(store: Store, path: str, asked: Headers) -> Response:
    """The file, the part asked for, or word that the client has it already. Raises as `Store.read` does."""
    if "range" not in asked and "if-none-match" not in asked:
        opened = await store.read(path)
        return _Download(opened, Span(0, opened.size_bytes), path, status=200)
    for _ in range(_REOPENINGS):
        stat = await store.stat(path)
        if _named(asked.get("if-none-match"), stat.etag):
            return Response(status_code=304, headers={"ETag": stat.etag})
        try:
            span = requested_span(asked.get("range"), stat.size_bytes) if _range_holds(asked, stat) else None
        except Unsatisfiable:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{stat.size_bytes}"})
        opened = await (store.read(path) if span is None else store.read(path, span.start, span.end))
        if span is None:
            return _Download(opened, Span(0, opened.size_bytes), path, status=200)
        if opened.etag == stat.etag:
            return _Download(opened, span, path, status=206)
        await opened.aclose()  # replaced between the two calls: the range has to be read anew
    opened = await store.read(path)
    return _Download(opened, Span(0, opened.size_bytes), path, status=200)


class _Download(StreamingResponse):
    """Streams an opened file and closes it, also when the client goes away before the first byte."""

    def __init__(self, opened: Opened, span: Span, path: str, *, status: int) -> None:
        headers = _headers(path, opened.etag)
        headers["Content-Length"] = str(span.end - span.start)
        if status == 206:
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{opened.size_bytes}"
        super().__init__(opened.stream, status_code=status, headers=headers)
        self.opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.opened.aclose()


def _headers(path: str, etag: str) -> dict[str, str]:
    return {
        "Content-Type": content_type(path),
        "Content-Disposition": attachment(path),
        "Content-Security-Policy": "sandbox",
        "Cache-Control": "no-cache",
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }


def _range_holds(asked: Headers, stat: Stat) -> bool:
    """Whether the version the client has a part of (`If-Range`) is the one that is here; dates are not compared."""
    return asked.get("if-range", stat.etag) == stat.etag


def _named(if_none_match: str | None, etag: str) -> bool:
    names = [] if if_none_match is None else [name.strip().removeprefix("W/") for name in if_none_match.split(",")]
    return etag in names or "*" in names
