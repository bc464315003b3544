"""Small files into a folder, each as `local.py` does one: written, synced, renamed, its folder synced.

With as few calls as it takes: each gives up the interpreter and has to get it back.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


def write_many(root: str, uploads: str, files: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
    """Which of the files, given by different paths below `root`, are there now for good; blocks.

    Where there was any trouble, or a symbolic link is in the way, nothing has changed.
    """
    name = uuid4().hex
    making = [_Small(f"{root}/{path}", f"{uploads}/{name}-{number}") for number, (path, _) in enumerate(files)]
    looked_at = {root: True}
    try:
        for small, (_, data) in zip(making, files, strict=True):
            small.write(data)
        for small in making:
            if small.is_whole and _is_plain(small.folder, looked_at):
                small.publish()
        for folder in {small.folder for small in making if small.is_published}:
            _sync_folder(folder)
    finally:
        for small in making:
            small.end()
    return [small.is_published for small in making]


class _Small:
    """A file that nobody sees until it is published. A step that fails says so by not being done."""

    def __init__(self, place: str, unfinished: str) -> None:
        self.place = place
        self.folder = place.rpartition("/")[0]
        self.unfinished = unfinished
        self.descriptor = -1
        self.is_whole = self.is_published = False

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self.descriptor = os.open(self.unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            written = os.write(self.descriptor, data)
            os.fsync(self.descriptor)
            self.is_whole = written == len(data)

    def publish(self) -> None:
        with suppress(OSError):
            if _is_link(self.place):
                return
            try:
                Path(self.unfinished).replace(self.place)
            except FileNotFoundError:
                Path(self.folder).mkdir(parents=True, exist_ok=True)
                Path(self.unfinished).replace(self.place)
            self.is_published = True

    def end(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            if not self.is_published:
                with suppress(OSError):
                    Path(self.unfinished).unlink()


def _is_plain(folder: str, looked_at: dict[str, bool]) -> bool:
    """Whether no symbolic link leads to `folder`, as far as it is there; `looked_at` knows the answer for the root."""
    known = looked_at.get(folder)
    if known is None:
        known = looked_at[folder] = _is_plain(folder.rpartition("/")[0], looked_at) and not _is_link(folder)
    return known


def _is_link(place: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except FileNotFoundError:
        return False


def _sync_folder(folder: str) -> None:
    """Make the rename last through a power cut; not every file system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
