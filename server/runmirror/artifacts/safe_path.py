"""The one rule for artifact paths, whoever sends them and however: body, query, URL or a stored `artifact_uri`.

A path arrives decoded once, by the framework. It is never decoded again, so what still looks encoded after that was
meant for a second decoder somewhere and is refused. `?`, `#` and `;` are letters like any other.
"""

import re
from collections.abc import Iterator

from runmirror.errors import InvalidParameter

MAX_SEGMENT_BYTES = 255  # what file systems take
MAX_PATH_BYTES = 1000  # Azure Blob takes 1024, and the configured prefix comes before it
RESERVED = ".uploads"  # the store's own folder at its top, where unfinished uploads lie

_STILL_ENCODED = re.compile(r"%(?:25)*(?:2e|2f|5c|00)", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # the category Cc of Unicode
_DRIVE = re.compile(r"[A-Za-z]:")


def safe_path(path: str) -> str:
    """`path`, when it is relative and names one place below the root it will be joined to.

    Raises `InvalidParameter` otherwise; the message never repeats the path.
    """
    if fault := next(_faults(path), None):
        raise InvalidParameter(f"Invalid path: {fault}")
    return path


def _faults(path: str) -> Iterator[str]:
    if _SURROGATE.search(path):
        yield "it is not valid Unicode"
    elif len(path.encode()) > MAX_PATH_BYTES:
        yield f"it is longer than {MAX_PATH_BYTES} bytes"
    if "\ufffd" in path:  # what decoders put for broken UTF-8: two different names would become one
        yield "it is not valid UTF-8"
    if _CONTROL.search(path):
        yield "it has control characters"
    if "\\" in path:
        yield "it has a backslash"
    if _STILL_ENCODED.search(path):
        yield "it is encoded more than once"
    segments = path.split("/")
    if "" in segments:
        yield "it is absolute, or has an empty segment"
    if "." in segments or ".." in segments:
        yield "it has a '.' or '..' segment"
    if any(_DRIVE.match(segment) for segment in segments):
        yield "it has a drive letter"
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        yield f"a segment is longer than {MAX_SEGMENT_BYTES} bytes"
    if segments[0].casefold() == RESERVED:
        yield f"{RESERVED!r} is reserved"
