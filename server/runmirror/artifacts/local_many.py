"""Small files into a folder, each as `local.py` does one: written, synced, renamed, its folder synced.

With as few calls as it takes: each gives up the interpreter and has to get it back. Everything here blocks.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


class Unfinished:
    """A file that nobody sees until it is published. What fails is told by its not being whole, or not published."""

    def __init__(self, uploads: str, data: bytes) -> None:
        self.place = f"{uploads}/{uuid4().hex}"
        self.descriptor = -1
        self.is_whole = self.is_published = False
        with suppress(OSError):
            self.descriptor = os.open(self.place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self.is_whole = os.write(self.descriptor, data) == len(data)

    def send(self) -> None:
        """Have the disk begin with it, so that several are on their way at once."""
        with suppress(OSError):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        with suppress(OSError):
            os.fsync(self.descriptor)
            return
        self.is_whole = False

    def publish(self, place: str, folder: str) -> None:
        with suppress(OSError):
            if _is_link(place):
                return
            try:
                Path(self.place).replace(place)
            except FileNotFoundError:
                Path(folder).mkdir(parents=True, exist_ok=True)
                Path(self.place).replace(place)
            self.is_published = True

    def end(self) -> None:
        """Let go of it, and of the file too if nobody sees it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            if not self.is_published:
                with suppress(OSError):
                    Path(self.place).unlink()


def put_many(root: str, uploads: str, files: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
    """Which of the files, each with a path below `root` of its own, are there now for good.

    Where there was any trouble, or a symbolic link is in the way, nothing has changed.
    """
    begun = [Unfinished(uploads, data) for _, data in files]
    looked_at = {root: True}
    folders: set[str] = set()
    try:
        for file in begun:
            file.send()
        for file, (path, _) in zip(begun, files, strict=True):
            place = f"{root}/{path}"
            folder = place.rpartition("/")[0]
            file.sync()
            if file.is_whole and _is_plain(folder, looked_at):
                file.publish(place, folder)
                folders.add(folder)
        for folder in folders:
            sync_folder(folder)
    finally:
        for file in begun:
            file.end()
    return [file.is_published for file in begun]


def _is_plain(folder: str, looked_at: dict[str, bool]) -> bool:
    """Whether no symbolic link leads to `folder`, as far as it is there; `looked_at` knows the answer for the root."""
    known = looked_at.get(folder)
    if known is None:
        known = looked_at[folder] = _is_plain(folder.rpartition("/")[0], looked_at) and not _is_link(folder)
    return known


def _is_link(place: str) -> bool:
    """Also what cannot be looked at."""
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except FileNotFoundError:
        return False
    except OSError:  # below a file, for one
        return True


def sync_folder(folder: str) -> None:
    """Make the rename last through a power cut; not every file system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
