"""Requests and answers of the artifact endpoints."""

from collections.abc import Iterable

from runmirror.artifacts.files import Entry
from runmirror.wire import Wire


class FileWire(Wire):
    path: str
    is_dir: bool
    file_size: int | None = None


class ListArtifacts(Wire):
    """`files` is left out when there are none, as protobuf's JSON has it."""

    root_uri: str | None = None
    files: list[FileWire] | None = None


def listing(entries: Iterable[Entry], *, below: str = "", root_uri: str | None = None) -> ListArtifacts:
    """The entries under their own names, after the folder `below` that the client asked for."""
    prefix = f"{below}/" if below else ""
    files = [
        # MLflow leaves the size of an empty file out, as if it were not known.
        FileWire(path=prefix + entry.name, is_dir=entry.is_dir, file_size=entry.size_bytes or None)
        for entry in entries
    ]
    return ListArtifacts(root_uri=root_uri, files=files or None)
