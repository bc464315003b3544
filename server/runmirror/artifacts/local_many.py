"""Small files into a folder: written without a name, synced, named, and then their folders synced.

A file without a name (Linux's O_TMPFILE) is nobody's but ours until it gets one, vanishes with us, and changes no
folder before: in a folder that all files pass through, each would wait for what the others change there to reach the
disk. With as few calls as it takes: each gives up the interpreter and has to get it back. Everything here blocks.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from runmirror.artifacts.files import Written
from runmirror.artifacts.syncs import begin_syncs


def knows_nameless(folder: str) -> bool:
    """Whether files without a name can be made and named there: not on NFS or SMB, nor on other systems than Linux."""
    if not hasattr(os, "O_TMPFILE"):
        return False
    file = Nameless(folder, b"")
    try:
        place = f"{folder}/{uuid4().hex}"
        file.publish(place, folder)
        with suppress(OSError):
            Path(place).unlink()
        return file.is_published
    finally:
        file.end()


class Nameless:
    """A file on the disk of `uploads` that has no name until it is published.

    What fails is told by its not being whole, or not published.
    """

    def __init__(self, uploads: str, data: bytes) -> None:
        self._uploads = uploads
        self.descriptor = -1
        self.is_whole = self.is_published = False
        with suppress(OSError):
            self.descriptor = os.open(uploads, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
            self.is_whole = os.write(self.descriptor, data) == len(data)

    def publish(self, place: str, folder: str) -> None:
        """Name it `place`, in `folder`, instead of what has that name."""
        with suppress(OSError):
            try:
                self._name_or_replace(place)
            except FileNotFoundError:
                Path(folder).mkdir(parents=True, exist_ok=True)
                self._name_or_replace(place)
            self.is_published = True

    def end(self) -> None:
        """Let go of it; nothing is left of it unless it is published."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _name_or_replace(self, place: str) -> None:
        try:
            self._name(place)
        except FileExistsError:
            if _is_link(place):
                raise
            beside = f"{self._uploads}/{uuid4().hex}"
            self._name(beside)
            try:
                Path(beside).replace(place)
            except OSError:
                Path(beside).unlink()
                raise

    def _name(self, place: str) -> None:
        # Any descriptor will do for `src_dir_fd`, since the path is absolute: only with one Python follows the link.
        of_process = f"/proc/self/fd/{self.descriptor}"
        os.link(of_process, place, src_dir_fd=self.descriptor, follow_symlinks=True)


def put_many(root: str, uploads: str, files: Sequence[tuple[str, bytes]]) -> Sequence[Written | None]:
    """What of the files, each with a path below `root` of its own, is there now for good.

    Where there was any trouble, or a symbolic link is in the way: None, and nothing has changed.
    """
    begun = [Nameless(uploads, data) for _, data in files]
    looked_at = {root: True}
    folders: set[str] = set()
    try:
        whole = [number for number, file in enumerate(begun) if file.is_whole]
        wait = begin_syncs([begun[number].descriptor for number in whole])
        written = [_written(data) for _, data in files]  # while the disk is at work
        for number, is_synced in zip(whole, wait(), strict=True):  # all, before one is named
            place = f"{root}/{files[number][0]}"
            folder = place.rpartition("/")[0]
            if is_synced and _is_plain(folder, looked_at):
                begun[number].publish(place, folder)
                folders.add(folder)
        _sync_folders(folders)
    finally:
        for file in begun:
            file.end()
    return [what if file.is_published else None for file, what in zip(begun, written, strict=True)]


def _written(data: bytes) -> Written:
    return Written(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())


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


def _sync_folders(folders: Collection[str]) -> None:
    """As `sync_folder`, side by side.

    They are opened after all is named in them, by its path: a folder may be moved away to be deleted, and whoever has
    it open moves with it.
    """
    descriptors = []
    try:
        for folder in folders:
            with suppress(OSError):
                descriptors.append(os.open(folder, os.O_RDONLY))
        begin_syncs(descriptors)()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Make the rename last through a power cut; not every file system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
