"""The blob endpoint: signed URLs only, block blobs only."""

import asyncio
import base64
import binascii
import re
import secrets
from email.utils import formatdate
from xml.etree import ElementTree as ET

from starlette.requests import Request
from starlette.responses import Response

from azureml_emulator import blob_copy, sas
from azureml_emulator.blob_store import join, read_file, receive
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import BlobError
from azureml_emulator.state import Blob

_OF_RUNS = "ExperimentRun/dcid."
RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def _name(request: Request) -> str:
    if request.path_params["container"] != sas.CONTAINER:
        raise BlobError(404, "ContainerNotFound", "The specified container does not exist.")
    name: str = request.path_params["name"]
    return name


def _find(emulator: Emulator, name: str) -> Blob:
    blob = emulator.state.blobs.get(name)
    if blob is None:
        raise BlobError(404, "BlobNotFound", "The specified blob does not exist.")
    return blob


def _headers(request: Request, blob: Blob | None = None) -> dict[str, str]:
    headers = {
        "x-ms-request-id": secrets.token_hex(16),
        "x-ms-version": request.headers.get("x-ms-version", sas.VERSION),
    }
    if client_id := request.headers.get("x-ms-client-request-id"):
        headers["x-ms-client-request-id"] = client_id
    if blob is not None:
        headers |= {"etag": blob.etag, "last-modified": formatdate(blob.modified, usegmt=True)}
    return headers


def _content_headers(request: Request, blob: Blob) -> dict[str, str]:
    return {
        **_headers(request, blob),
        **({"content-md5": blob.shown_md5} if blob.shown_md5 else {}),
        "content-type": blob.content_type,
        "accept-ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-creation-time": formatdate(blob.modified, usegmt=True),
        "x-ms-lease-state": "available",
        "x-ms-lease-status": "unlocked",
        "x-ms-server-encrypted": "true",
    }


def _check_absent(emulator: Emulator, request: Request, name: str) -> None:
    """If-None-Match: * means: only if there is no such blob."""
    if request.headers.get("if-none-match") == "*" and name in emulator.state.blobs:
        raise BlobError(409, "BlobAlreadyExists", "The specified blob already exists.")


def _check_match(request: Request, blob: Blob) -> None:
    wanted = request.headers.get("if-match", "*")
    if wanted not in ("*", blob.etag):
        raise BlobError(412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met.")


async def put(emulator: Emulator, request: Request) -> Response:
    """Put Blob, Put Block or Put Block List, by the query's comp."""
    name = _name(request)
    emulator.signer.check(request, name, "cw")
    match request.query_params.get("comp"):
        case None:
            return await _put_blob(emulator, request, name)
        case "block":
            return await _put_block(emulator, request, name)
        case "blocklist":
            return await _put_block_list(emulator, request, name)
        case comp:
            raise BlobError(400, "InvalidQueryParameterValue", f"comp={comp} is not emulated.")


def _commit(emulator: Emulator, request: Request, name: str, blob: Blob) -> Response:
    # Again, because another upload of the same blob may have ended meanwhile.
    try:
        _check_absent(emulator, request, name)
    except BlobError:
        blob.file.unlink()
        raise
    held = emulator.state.blobs.get(name)
    emulator.state.blobs[name] = blob
    if name.startswith(_OF_RUNS):
        run_id, _, path = name.removeprefix(_OF_RUNS).partition("/")
        emulator.recorder.changed(run_id, "file", {"path": path, "sha256": blob.sha256})
    if held is not None:
        held.file.unlink(missing_ok=True)
    for block in emulator.state.blocks.pop(name, {}).values():
        block.unlink(missing_ok=True)
    return Response(status_code=201, headers={**_headers(request, blob), "content-md5": blob.md5})


async def _put_blob(emulator: Emulator, request: Request, name: str) -> Response:
    if request.headers.get("x-ms-blob-type") != "BlockBlob":
        text = "An HTTP header that's mandatory for this request is not specified: x-ms-blob-type."
        raise BlobError(400, "MissingRequiredHeader", text)
    if "content-length" not in request.headers:
        raise BlobError(411, "MissingContentLengthHeader", "Content-Length is required.")
    _check_absent(emulator, request, name)
    return _commit(emulator, request, name, await _take(emulator, request))


async def _take(emulator: Emulator, request: Request) -> Blob:
    """What a request brings, or names by the URL it is to be copied from."""
    if "x-ms-copy-source" in request.headers:
        return await blob_copy.fetch(emulator, request)
    return await receive(emulator.blob_dir, request)


async def _put_block(emulator: Emulator, request: Request, name: str) -> Response:
    block_id = request.query_params.get("blockid", "")
    try:
        base64.b64decode(block_id, validate=True)
    except binascii.Error:
        raise BlobError(400, "InvalidQueryParameterValue", "blockid must be Base64.") from None
    if any(len(other) != len(block_id) for other in emulator.state.blocks.get(name, {})):
        raise BlobError(400, "InvalidBlobOrBlock", "The specified blob or block content is invalid.")
    block = await _take(emulator, request)
    held = emulator.state.blocks[name].get(block_id)
    emulator.state.blocks[name][block_id] = block.file
    if held is not None:
        held.unlink(missing_ok=True)
    return Response(status_code=201, headers={**_headers(request), "content-md5": block.md5})


async def _put_block_list(emulator: Emulator, request: Request, name: str) -> Response:
    _check_absent(emulator, request, name)
    body = await request.body()
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise BlobError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.")
    try:
        wanted = [entry.text or "" for entry in ET.fromstring(body)]  # noqa: S314 - no entities get here
    except ET.ParseError:
        raise BlobError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") from None
    blocks = emulator.state.blocks.get(name, {})
    if any(block_id not in blocks for block_id in wanted):
        raise BlobError(400, "InvalidBlockList", "The specified block list is invalid.")
    content_type = request.headers.get("x-ms-blob-content-type", "application/octet-stream")
    files = [blocks[block_id] for block_id in wanted]
    blob = await asyncio.to_thread(join, emulator.blob_dir, files, content_type)
    blob.shown_md5 = request.headers.get("x-ms-blob-content-md5")
    return _commit(emulator, request, name, blob)


async def head(emulator: Emulator, request: Request) -> Response:
    name = _name(request)
    emulator.signer.check(request, name, "r")
    blob = _find(emulator, name)
    headers = {**_content_headers(request, blob), "content-length": str(blob.size)}
    return Response(status_code=200, headers=headers)


def _block_list(emulator: Emulator, request: Request, name: str) -> Response:
    """The blocks that wait for their list; those of a committed blob are not told."""
    blocks = emulator.state.blocks.get(name, {})
    if not blocks and name not in emulator.state.blobs:
        raise BlobError(404, "BlobNotFound", "The specified blob does not exist.")
    listed = "".join(
        f"<Block><Name>{block_id}</Name><Size>{file.stat().st_size}</Size></Block>"
        for block_id, file in sorted(blocks.items())
    )
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><BlockList><UncommittedBlocks>{listed}</UncommittedBlocks></BlockList>'
    )
    return Response(text, headers={**_headers(request), "content-type": "application/xml"})


async def get(emulator: Emulator, request: Request) -> Response:
    """The whole blob, or one range of it; with comp=blocklist, what was staged for it."""
    name = _name(request)
    emulator.signer.check(request, name, "r")
    if request.query_params.get("comp") == "blocklist":
        return _block_list(emulator, request, name)
    blob = _find(emulator, name)
    _check_match(request, blob)
    wanted = request.headers.get("x-ms-range") or request.headers.get("range")
    headers = _content_headers(request, blob)
    match = RANGE.fullmatch(wanted or "")
    if match is None:
        return read_file(blob.file, 0, blob.size, 200, headers)
    start = int(match[1])
    end = min(int(match[2] or blob.size), blob.size - 1)
    if start >= blob.size or end < start:
        raise BlobError(416, "InvalidRange", "The range specified is invalid for the current size of the resource.")
    headers["content-range"] = f"bytes {start}-{end}/{blob.size}"
    if whole_md5 := headers.pop("content-md5", None):
        headers["x-ms-blob-content-md5"] = whole_md5
    return read_file(blob.file, start, end - start + 1, 206, headers)


ROUTES = [
    ("PUT", "/{container}/{name:path}", put),
    ("HEAD", "/{container}/{name:path}", head),
    ("GET", "/{container}/{name:path}", get),
]
