"""Blob bytes on disk: streamed in with their hashes, renamed into place, streamed out by range."""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from azureml_emulator.errors import AzureError
from azureml_emulator.state import Blob

CHUNK = 256 * 1024


class Writing:
    """A file that is coming in, with the hashes of what has come so far."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def add(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.size += len(chunk)
        self.sha256.update(chunk)
        self.md5.update(chunk)


@contextmanager
def writing(folder: Path) -> Iterator[tuple[Writing, Path]]:
    """Write beside the final place and rename at the end: a broken upload leaves nothing."""
    final = folder / secrets.token_hex(16)
    part = final.with_suffix(".part")
    try:
        with part.open("wb") as file:
            yield Writing(file), final
        part.rename(final)
    finally:
        part.unlink(missing_ok=True)


def blob_of(written: Writing, file: Path, content_type: str) -> Blob:
    return Blob(
        file=file,
        size=written.size,
        sha256=written.sha256.hexdigest(),
        md5=(md5 := base64.b64encode(written.md5.digest()).decode()),
        shown_md5=md5,
        content_type=content_type,
        etag=f'"0x8D{secrets.token_hex(6).upper()}"',
    )


async def receive(folder: Path, request: Request) -> Blob:
    """Stream a request body to disk; a checksum that the client sent must fit."""
    with writing(folder) as (written, file):
        async for chunk in request.stream():
            written.add(chunk)
        blob = blob_of(written, file, request.headers.get("x-ms-blob-content-type") or _content_type(request))
        if request.headers.get("content-md5", blob.md5) != blob.md5:
            text = "The MD5 value specified in the request did not match the MD5 value calculated by the server."
            raise AzureError(text, code="Md5Mismatch")
    return blob


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "application/octet-stream")


def join(folder: Path, blocks: list[Path], content_type: str) -> Blob:
    """Make one blob of committed blocks."""
    with writing(folder) as (written, file):
        for block in blocks:
            with block.open("rb") as source:
                while chunk := source.read(CHUNK):
                    written.add(chunk)
    return blob_of(written, file, content_type)


def read_file(file: Path, start: int, length: int, status: int, headers: dict[str, str]) -> Response:
    """Stream part of a file; it is opened first, so that a later overwrite does not mix the two."""
    source = file.open("rb")

    async def chunks() -> AsyncIterator[bytes]:
        left = length
        with source:
            source.seek(start)
            while left and (chunk := source.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk

    return StreamingResponse(chunks(), status, {**headers, "content-length": str(length)})
