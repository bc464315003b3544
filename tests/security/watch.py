"""What a process opens, starts, moves and connects to while it is watched, as Python's audit hooks tell it.

A hook cannot be taken away again, so there is one for the process, asleep but inside `watched`. It hears every thread.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILES = {
    "open",
    "os.listdir",
    "os.scandir",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "os.utime",
}
_PAIRS = {"os.rename", "os.link", "os.symlink"}
_NETWORK = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"}
_NEVER = {
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class",
    "shutil.unpack_archive", "urllib.Request", "http.client.connect", "ftplib.connect", "shutil.move",
}  # fmt: skip

_REPOSITORY = Path(__file__).resolve().parents[2]
# What a process may read of itself at any time: a module that is imported late, a table of MIME types.
_CODE = tuple(
    {
        *map(os.path.realpath, (sys.prefix, sys.base_prefix, *site.getsitepackages(), *sysconfig.get_paths().values())),
        *(os.path.realpath(place) for place in sys.path if place),
        str(_REPOSITORY / "server"),
        "/etc/mime.types",
    }
)


@dataclass(frozen=True)
class _Watch:
    heard: list[str]
    places: tuple[str, ...]
    peers: tuple[str, ...]


_watches: list[_Watch] = []  # none or one


@contextmanager
def watched(*places: Path, peers: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Lists what happens outside of `places`, and every connection but to `peers` (parts of an address's text)."""
    watch = _Watch([], tuple(os.path.realpath(place) for place in places), peers)
    _watches.append(watch)
    try:
        yield watch.heard
    finally:
        _watches.remove(watch)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in tuple(_watches):
        _tell(watch, event, arguments)


def _tell(watch: _Watch, event: str, arguments: tuple[Any, ...]) -> None:
    if event in _FILES:
        _tell_file(watch, event, arguments[0], arguments)
    elif event in _PAIRS:
        for place in arguments[:2]:
            _tell_file(watch, event, place, ("", "w"))
    elif event in _NETWORK:
        address = repr(arguments[1:])
        if not any(peer in address for peer in watch.peers):
            watch.heard.append(f"{event} {address}")
    elif event in _NEVER:
        watch.heard.append(f"{event} {arguments!r}"[:300])


def _tell_file(watch: _Watch, event: str, place: object, arguments: tuple[Any, ...]) -> None:
    if not isinstance(place, str | bytes):
        return  # a descriptor that was opened, and heard of, before
    path = os.path.realpath(os.fsdecode(place))
    if _below(path, watch.places):
        return
    reads = event in {"os.listdir", "os.scandir"} or (event == "open" and not _writes(arguments))
    if not (reads and _below(path, _CODE)):
        watch.heard.append(f"{event} {path} {arguments[1:]!r}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = (*arguments, None, None)[1:3]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(place + os.sep) for place in places)


sys.addaudithook(_hear)
