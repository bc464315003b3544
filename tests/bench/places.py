"""Where each server has its files: a folder of its own, in a part of the disk of its own.

ext4 seeks the place of a new file near its folder, and passes over those of files that were deleted in the last five
minutes one by one: near some thousands of them a file costs half a millisecond more. `mlflow server` deletes two things
for each upload, and the run of the bench before this one has left many. Neither is anybody else's to pay for.
"""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

# <linux/fs.h>: what `chattr +T` does. The folders in a folder of this kind are spread over the disk, by their names.
_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREES = 0x80086601, 0x40086602, 0x00020000


def spread(folder: Path) -> None:
    """Have the folders that are made in `folder` lie apart, where the file system knows of that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            flags = int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))[:4], "little")
            fcntl.ioctl(descriptor, _SET_FLAGS, (flags | _TOP_OF_TREES).to_bytes(8, "little"))
    finally:
        os.close(descriptor)


def home(folder: Path, name: str) -> Path:
    """A server's folder in that of the run, of a name that no run had before."""
    return folder / f"{name}-{folder.name.rpartition('-')[2]}"
