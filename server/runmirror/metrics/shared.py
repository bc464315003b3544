"""The folder in which the API processes of one `serve` share their counts."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # the library reads it when it is imported
_LIVE = re.compile(r"gauge_live\w+_(?P<process>\d+)\.db")


@contextmanager
def shared_counts(parent: Path | None) -> Iterator[dict[str, str]]:
    """The environment for processes that share their counts: a new folder, below `parent` if one is named."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="runmirror-metrics-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield {SHARED: folder}


def shared_folder() -> Path | None:
    """Where this process shares its counts; None when it is the only one."""
    folder = os.environ.get(SHARED)
    return None if folder is None else Path(folder)


def forget_dead(folder: Path) -> None:
    """What a process that has died had in use is free; what it had counted stays counted."""
    for file in folder.iterdir():
        found = _LIVE.fullmatch(file.name)
        if found and not _is_running(int(found["process"])):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
