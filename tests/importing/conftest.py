"""An old server that is full of everything, once per session; imports run in this process."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runmirror.importing.command import How, import_from
from runmirror.importing.task import Wish
from runmirror.settings import Settings
from tests.conformance.servers import mlflow_server
from tests.importing.old_server import OldServer, start_filling


@dataclass
class Imported:
    """What an import told."""

    agrees: bool
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = self.lines[-1]["counts"]
        return found

    def told(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


Import = Callable[..., Awaitable[Imported]]


@pytest.fixture(scope="session")
def old_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OldServer, Path]]:
    """The server, and a folder of the file store: both filled with the same."""
    folder, files = tmp_path_factory.mktemp("old-server"), tmp_path_factory.mktemp("old-files") / "mlruns"
    in_files = start_filling(str(files), files.parent)
    with mlflow_server(folder) as url:
        in_server = start_filling(url, folder)
        made = []
        for process in (in_server, in_files):
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-4000:]
            made.append(json.loads(output.splitlines()[-1]))
        yield OldServer(url, folder, made[0]), files


@pytest.fixture
def old_server(old_places: tuple[OldServer, Path]) -> OldServer:
    return old_places[0]


@pytest.fixture
def import_all(settings: Settings) -> Import:
    return importing(settings)


def importing(settings: Settings) -> Import:
    """`runmirror import FROM --json`; keywords are fields of Wish and How."""

    async def run(address: str, **options: Any) -> Imported:
        lines: list[str] = []
        how = {name: options.pop(name) for name in list(options) if name in How.__dataclass_fields__}
        assert settings.database_url is not None
        wish = Wish(**{"workers": 2, **options})
        agrees = await import_from(
            settings, settings.database_url, address, wish=wish, how=How(as_json=True, **how), tell=lines.append
        )
        return Imported(agrees, [json.loads(line) for line in lines])

    return run
