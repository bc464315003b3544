"""Copies that storage does itself: it is told a URL and fetches the bytes, which the client never sees."""

import base64
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request

from azureml_emulator.blob_store import blob_of, writing
from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, BlobError
from azureml_emulator.state import Blob

_LOOPBACK = ("127.0.0.1", "localhost")


async def fetch(emulator: Emulator, request: Request) -> Blob:
    """The bytes at `x-ms-copy-source`, or a range of them; the source must be a stand-in for storage, on loopback."""
    url = request.headers["x-ms-copy-source"]
    if not emulator.settings.copy_sources or urlsplit(url).hostname not in _LOOPBACK:
        raise BlobError(403, "CannotVerifyCopySource", "This request is not authorized to perform this operation.")
    if int(request.headers.get("content-length", "0")):
        raise BlobError(400, "InvalidHeaderValue", "A copy from a URL has no body: Content-Length must be 0.")
    wanted = {"x-ms-version": "2021-08-06"}
    if span := request.headers.get("x-ms-source-range"):
        wanted["x-ms-range"] = span
    if etag := request.headers.get("x-ms-source-if-match"):
        wanted["If-Match"] = etag
    with writing(emulator.blob_dir) as (written, file):
        try:
            async with (
                httpx.AsyncClient(trust_env=False, timeout=60) as client,
                client.stream("GET", url, headers=wanted) as answer,
            ):
                _check(answer)
                async for chunk in answer.aiter_raw():
                    written.add(chunk)
        except httpx.HTTPError as error:
            raise BlobError(404, "CannotVerifyCopySource", f"The source does not answer: {error}") from None
        told = request.headers.get("x-ms-source-content-md5")
        if told not in {None, base64.b64encode(written.md5.digest()).decode()}:
            raise AzureError("The MD5 of the source is not the one specified.", code="Md5Mismatch")
        blob = blob_of(written, file, "application/octet-stream")
    if wanted_md5 := request.headers.get("x-ms-blob-content-md5"):
        blob.shown_md5 = wanted_md5
    return blob


def _check(answer: httpx.Response) -> None:
    if answer.status_code == 412:
        raise BlobError(412, "SourceConditionNotMet", "The source condition specified is not met.")
    if not answer.is_success:
        code = answer.headers.get("x-ms-error-code", "")
        raise BlobError(answer.status_code, "CannotVerifyCopySource", f"The source refuses: {code}")
