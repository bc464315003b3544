"""Files into Azure ML's artifact service: registered once each, then put into Blob storage by signed URLs.

register ──new──▶ put
         └─known─▶ same content ──▶ done
                   no content yet (an attempt died in between) ──▶ put by another URL, from where that attempt ended
                   other content (overwritten at the source) ──▶ put over it if the service grants a URL for that,
                                                                 else the revision's path
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from runmirror.mirror.azureml_http import AzureClient, Json, Refused, facts_of
from runmirror.mirror.azureml_transport import Answer
from runmirror.mirror.azureml_upload import CopyByUrl, Destination, Sizes, StoredBlob, Upload, together
from runmirror.mirror.redact import redact
from runmirror.mirror.target import (
    Copied,
    Guard,
    RemoteFile,
    RemoteRun,
    SourceChanged,
    TargetRejected,
    TargetUnauthorized,
    TargetUnavailable,
)

_CONFLICT = "already exists"


class Copier:
    """Copies files into one run."""

    def __init__(
        self,
        client: AzureClient,
        guard: Guard,
        *,
        history_url: str,
        artifact_url: str,
        run: RemoteRun,
        at_once: int,
        per_request: int,
        sizes: Sizes,
        by_url: CopyByUrl,
    ) -> None:
        self._client = client
        self._guard = guard
        self._run_url = f"{history_url}/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts"
        self._artifact_url = f"{artifact_url}/artifacts"
        self._container = f"ExperimentRun/dcid.{run.run_id}"
        self._per_request = per_request
        self._sizes = sizes
        self._by_url = by_url
        self._files = asyncio.Semaphore(at_once)
        self._slots = asyncio.Semaphore(at_once)
        self._conflicts = dict[str, str]()  # by which request each was refused
        self._revised: list[RemoteFile] = []

    async def paths(self) -> Sequence[str]:
        """Every path of the run, a page at a time."""
        found: list[str] = []
        params: dict[str, str | int] = {}
        while True:
            url = f"{self._artifact_url}/{self._container}"
            answer = await self._client.call(self._guard, "GET", url, params=params)
            found += [str(entry.get("path")) for entry in answer.get("value") or []]
            if not answer.get("continuationToken"):
                return found
            params["continuationToken"] = str(answer["continuationToken"])

    async def copy(self, files: Sequence[RemoteFile]) -> Copied:
        """Copy what is not there yet, a group at a time, so that no signed URL waits long."""
        sent, changed = 0, list[RemoteFile]()

        async def one(file: RemoteFile, url: str | None) -> None:
            nonlocal sent
            async with self._files:
                try:
                    # Two steps: `sent +=` would read before the wait what others add to meanwhile.
                    copied = await self._copy(file, url)
                    sent += copied
                except SourceChanged:
                    changed.append(file)

        for at in range(0, len(files), self._per_request):
            group = files[at : at + self._per_request]
            urls = await self._register([file.path for file in group])
            await together(one(file, urls[file.path]) for file in group)
        return Copied(sent, tuple(changed), tuple(self._revised))

    async def _register(self, paths: list[str]) -> dict[str, str | None]:
        """A URL to write to for every path; None for one that was registered before."""
        body: Json = {"paths": [{"path": path} for path in paths]}
        answer = await self._client.call(self._guard, "POST", f"{self._run_url}/batch/metadata", body=body)
        contents, errors = answer.get("artifactContentInformation") or {}, answer.get("errors") or {}
        urls: dict[str, str | None] = {}
        for path in paths:
            if path in contents:
                urls[path] = str(contents[path]["contentUri"])
            elif path in errors:
                self._conflicts[path] = _raise_unless_conflict(path, errors[path], body)
                urls[path] = None
            else:
                raise TargetUnavailable("the artifact service's answer leaves out a path it was asked about")
        return urls

    async def _copy(self, file: RemoteFile, url: str | None) -> int:
        if url is not None:
            return await self._put(url, file, file.path)
        there = await self._blob_at(file.path)
        if await self._holds(file.path, there, file):
            return 0
        if there is None or there.size_bytes == 0:
            return await self._put(await self._url_again(file.path), file, file.path, resumed=True)
        granted = await self._write_url(file.path)
        if granted is not None:
            return await self._put(granted, file, file.path, resumed=True)
        return await self._copy_revision(file)

    async def _copy_revision(self, file: RemoteFile) -> int:
        """The path is taken by an earlier content for good."""
        path = file.revision_path
        url = (await self._register([path]))[path]
        if url is not None:
            sent = await self._put(url, file, path)
        elif await self._holds(path, await self._blob_at(path), file):
            sent = 0
        else:
            sent = await self._put(await self._url_again(path), file, path, resumed=True)
        self._revised.append(file)
        return sent

    async def _holds(self, path: str, there: StoredBlob | None, file: RemoteFile) -> bool:
        """Whether the content is there already; what has no MD5 on record, here or there, is read for it."""
        if there is None or there.size_bytes != file.size_bytes:
            return False
        return (there.md5 or await self._digest_at(path, there.size_bytes)) == (file.md5 or await _digest(file))

    async def _digest_at(self, path: str, size: int) -> str:
        hashing = hashlib.md5(usedforsecurity=False)
        for start in range(0, size, self._sizes.block):
            span = f"bytes={start}-{min(start + self._sizes.block, size) - 1}"
            answer = await self._read(path, "GET", {"x-ms-range": span})
            hashing.update(b"" if answer is None else answer.content)
        return hashing.hexdigest()

    async def _blob_at(self, path: str) -> StoredBlob | None:
        """What was uploaded to a registered path."""
        answer = await self._read(path, "HEAD", {})
        return None if answer is None else StoredBlob.told_by(answer)

    async def _read(self, path: str, method: str, headers: Mapping[str, str]) -> Answer | None:
        try:
            info = await self._client.call(self._guard, "GET", f"{self._run_url}/contentinfo", params={"path": path})
            return await self._client.blob(self._guard, method, str(info.get("contentUri")), headers=headers)
        except Refused as error:
            if error.is_absent:
                return None
            if error.status in {401, 403}:
                raise TargetUnauthorized(str(error)) from None
            raise

    async def _write_url(self, path: str) -> str | None:
        """A URL that may overwrite, if the service grants one."""
        url = f"{self._artifact_url}/write/{self._container}/{quote(path)}"
        try:
            return str((await self._client.call(self._guard, "GET", url)).get("contentUri"))
        except (Refused, TargetUnauthorized):
            return None

    async def _url_again(self, path: str) -> str:
        """A URL for a path that was registered and has no content: granted, or by registering it anew."""
        granted = await self._write_url(path)
        if granted is not None:
            return granted
        await self._client.call(
            self._guard, "DELETE", f"{self._artifact_url}/metadata/{self._container}/{quote(path)}"
        )  # fmt: skip
        url = (await self._register([path]))[path]
        if url is None:
            reason = f"artifact {path!r} is registered in the workspace but may not be uploaded"
            raise TargetRejected(f"{reason} (conflict{self._conflicts[path]})")
        return url

    async def _put(self, url: str, file: RemoteFile, path: str, *, resumed: bool = False) -> int:
        to = Destination(
            self._client, self._guard, url, renew=lambda: self._url_again(path), look=lambda: self._blob_at(path)
        )
        upload = Upload(file, to, slots=self._slots, sizes=self._sizes, by_url=self._by_url, resumed=resumed)
        try:
            await upload.run()
        except Refused as error:
            if error.status == 409 and await self._holds(path, await self._blob_at(path), file):
                return 0
            raise
        return file.size_bytes


async def _digest(file: RemoteFile) -> str:
    hashing = hashlib.md5(usedforsecurity=False)
    if file.size_bytes:
        async for chunk in await file.read(0, file.size_bytes):
            hashing.update(chunk)
    return hashing.hexdigest()


def _raise_unless_conflict(path: str, told: Any, asked: Json) -> str:
    """A path may be refused for being known, by which request is returned; any other refusal is the run's fault."""
    told = told if isinstance(told, dict) else {"error": {"message": str(told)}}
    error = told.get("error")
    error = error if isinstance(error, dict) else {}
    message = str(error.get("message") or told)
    if _CONFLICT not in message.lower() and "conflict" not in message.lower():
        reason = redact(f"{error.get('code') or 'error'}: {message}")
        raise TargetRejected(f"{reason} (artifact {path!r}{facts_of(told, asked)})")
    return facts_of(told, asked)
