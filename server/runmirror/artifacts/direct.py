"""Transfers that pass us by: a client moves the bytes to or from the store itself, by URLs we sign.

A multipart upload ends with us, so it is recorded like any upload. Of a file put to a signed URL nobody tells us: it
is noted as pending before the URL is given out, and the worker looks for it (see `pending.py`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from runmirror.artifacts import downloads, pending_queries, queries
from runmirror.artifacts.files import CannotSign, Direct, InvalidParts
from runmirror.artifacts.service import Artifacts
from runmirror.errors import InvalidParameter, LoggedModelNotFound, TransferNotSupported

MAX_PARTS = 10_000
PART_LIFETIME = timedelta(hours=1)  # MLflow's own, and its client asks once for all parts
MAX_LIFETIME = timedelta(days=7)  # what a key lent by Azure can be valid
UPLOADS = "Multipart upload"
DOWNLOADS = "Multipart download"
_NOT_HERE = "this server keeps artifacts where clients cannot reach them"


@dataclass(frozen=True, slots=True)
class Download:
    """A file that can be fetched from `url`."""

    url: str
    size_bytes: int


async def begin_parts(artifacts: Artifacts, path: str, count: int) -> tuple[str, list[str]]:
    """The id of a new multipart upload, and a URL for each part."""
    direct = direct_or_unsupported(artifacts, UPLOADS)
    if count > MAX_PARTS:  # in these words the client sends the file through us instead
        raise InvalidParameter(TransferNotSupported(UPLOADS, f"a file has at most {MAX_PARTS} parts").message)
    if count < 1:
        raise InvalidParameter(f"Invalid value {count} for parameter 'num_parts' supplied: it must be positive.")
    await artifacts.slot(path)
    with _told(UPLOADS):
        upload_id, urls = await direct.sign_parts(path, count, PART_LIFETIME)
    return upload_id, list(urls)


async def end_parts(artifacts: Artifacts, path: str, upload_id: str, numbers: list[int]) -> None:
    """Make the file of its parts and record it; the bytes did not pass here, so their MD5 is not known."""
    direct = direct_or_unsupported(artifacts, UPLOADS)
    slot = await artifacts.slot(path)
    try:
        if not numbers or sorted(numbers) != list(range(1, len(numbers) + 1)):
            raise InvalidParts
        written = await direct.commit_parts(path, upload_id, len(numbers))
    except InvalidParts as error:
        raise InvalidParameter(
            "The upload cannot end: 'parts' must be all parts of this upload_id, each uploaded since the upload began "
            "and since any other upload of the same file ended. Nothing was written."
        ) from error
    await artifacts.record(slot, written)


def direct_or_unsupported(artifacts: Artifacts, transfer: str) -> Direct:
    """Raises `TransferNotSupported`."""
    if artifacts.store.direct is None:
        raise TransferNotSupported(transfer, _NOT_HERE)
    return artifacts.store.direct


async def download(artifacts: Artifacts, path: str, lifetime: timedelta) -> Download:
    """Raises as `Store.stat` does."""
    direct = direct_or_unsupported(artifacts, DOWNLOADS)
    stat = await artifacts.store.stat(path)
    with _told(DOWNLOADS):
        url = await direct.sign_download(
            path, lifetime, disposition=downloads.attachment(path), content_type=downloads.content_type(path)
        )
    return Download(url, stat.size_bytes)


async def download_of_run(artifacts: Artifacts, run_id: str, path: str, lifetime: timedelta) -> Download:
    """Raises `RunNotFound`."""
    place = await artifacts.path_in_run(run_id, path)
    _direct_or_proxied(artifacts, "Presigned download")
    return await download(artifacts, place, lifetime)


async def upload(
    artifacts: Artifacts, path: str, lifetime: timedelta, *, run_id: str = "", model_id: str = ""
) -> tuple[str, Mapping[str, str]]:
    """A URL to put a file of a run or of a logged model to, and the headers to send with it; noted as pending."""
    place = await (artifacts.path_in_run(run_id, path) if run_id else _path_in_model(artifacts, model_id, path))
    direct = _direct_or_proxied(artifacts, "Presigned upload")
    slot = await artifacts.slot(place)
    with _told("Presigned upload"):
        signed = await direct.sign_upload(place, lifetime)
    if slot.place is not None:
        async with artifacts.writing() as connection:
            await pending_queries.add(connection, slot.place, lifetime)
    return signed


async def _path_in_model(artifacts: Artifacts, model_id: str, path: str) -> str:
    async with artifacts.reading() as connection:
        roots = await queries.roots(connection, [], [model_id])
    if not roots:
        raise LoggedModelNotFound(model_id)
    return f"{roots[0].path}/{path}"


def _direct_or_proxied(artifacts: Artifacts, transfer: str) -> Direct:
    """MLflow's answer when the way to the bytes of a run is through the server."""
    if artifacts.store.direct is None:
        raise InvalidParameter(f"{transfer} is not supported for proxied artifact storage: {_NOT_HERE}.")
    return artifacts.store.direct


@contextmanager
def _told(transfer: str) -> Iterator[None]:
    try:
        yield
    except CannotSign as error:
        raise TransferNotSupported(transfer, str(error)) from error
