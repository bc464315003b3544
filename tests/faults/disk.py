"""A disk that is small, and one that is full."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; only root may."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "runmirror-faults", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(ballast: Path) -> Iterator[None]:
    """Not a byte is free, except what others give up meanwhile: that is taken too."""
    ended = threading.Event()

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file:
            size = 1024**2
            while not ended.is_set():
                try:
                    file.write(bytes(size))
                except OSError:
                    size = max(size // 2, 4096)
                    ended.wait(0.05)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        ended.set()
        filling.join()
        ballast.unlink()
