"""Files of a source that lie in a folder, or behind an `mlflow server`: which of the two is told by their address.

A database names folders that the command then reads. So that no database can have it read what is not a run's, a folder
counts only if it ends as MLflow has it (`…/{run id}/artifacts`), and nothing in it that leads out of it is followed.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from runmirror.importing.entities import OldFile
from runmirror.importing.source import FilesElsewhere, Root, SourceError

_CHUNK = 1 << 20
_PROXIED = "mlflow-artifacts:"
_OF_TRACE = re.compile(r"tr-[0-9a-f]{32}|[0-9a-f]{32}")


class Files(Protocol):
    async def list(self, root: Root) -> Sequence[OldFile]:
        """Raises `FilesElsewhere`."""
        ...

    def read(self, root: Root, path: str) -> AsyncIterator[bytes]:
        """Raises `SourceError`."""
        ...

    async def close(self) -> None: ...


class FolderFiles:
    """Artifacts in folders of this machine.

    `proxied`: the folder that the source's server serves as `mlflow-artifacts:/` (`--artifacts-destination`), if told.
    `otherwise` is asked for what lies elsewhere.
    """

    def __init__(self, proxied: Path | None, otherwise: Files | None = None) -> None:
        self._proxied = proxied
        self._otherwise = otherwise

    async def list(self, root: Root) -> Sequence[OldFile]:
        folder = self._folder(root)
        if folder is None:
            return await self._elsewhere(root).list(root)
        return await asyncio.to_thread(_files_below, folder)

    async def read(self, root: Root, path: str) -> AsyncIterator[bytes]:
        folder = self._folder(root)
        if folder is None:
            async for chunk in self._elsewhere(root).read(root, path):
                yield chunk
            return
        try:
            file = await asyncio.to_thread(_inside, folder, path)
            with await asyncio.to_thread(file.open, "rb") as opened:
                while chunk := await asyncio.to_thread(opened.read, _CHUNK):
                    yield chunk
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror or error}") from error

    async def close(self) -> None:
        if self._otherwise is not None:
            await self._otherwise.close()

    def _folder(self, root: Root) -> Path | None:
        """Where they are on this machine. None: not on it."""
        if root.uri.startswith(_PROXIED):
            below = unquote(urlsplit(root.uri).path).strip("/")
            if self._proxied is None or ".." in below.split("/"):
                return None
            return self._proxied / below
        folder = local_path(root.uri)
        return folder if folder is not None and _is_of(root, folder) else None

    def _elsewhere(self, root: Root) -> Files:
        if self._otherwise is None:
            raise FilesElsewhere(
                f"its files are at {root.uri or 'no address'}: name the server that reaches them, or the folder that "
                "it serves, with --artifacts-from"
            )
        return self._otherwise


def local_path(uri: str) -> Path | None:
    """The folder that an address means; None for one that means none."""
    if uri.startswith("file:"):
        return Path(url2pathname(urlsplit(uri).path))
    if not uri or re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:", uri):
        return None
    return Path(uri)


def _is_of(root: Root, folder: Path) -> bool:
    owner = root.model_id or root.run_id
    parts = folder.parts
    if owner:
        return parts[-2:] == (owner, "artifacts")
    return len(parts) > 2 and parts[-1] == "artifacts" and _OF_TRACE.fullmatch(parts[-2]) is not None


def _files_below(folder: Path) -> list[OldFile]:
    """Ordinary files, by path; links are passed over, whatever they lead to."""
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            file = Path(place) / name
            if file.is_symlink():
                continue
            told = file.stat()
            path = file.relative_to(folder).as_posix()
            found.append(OldFile(path, told.st_size, str(told.st_mtime_ns)))
    return found


def _inside(folder: Path, path: str) -> Path:
    file = (folder / path).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise SourceError(f"{path} leads out of the folder of its run")
    return file
