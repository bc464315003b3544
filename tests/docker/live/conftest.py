"""One engine and one build for all tests of this folder, and the compose file's projects in it."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker.live import stand_ins
from tests.docker.live.engine import Docker, engine
from tests.server import free_port

REPOSITORY = Path(__file__).resolve().parents[3]
COMPOSE = REPOSITORY / ".tools" / "docker-compose"
IMAGE, DEMO_IMAGE = "runmirror:test", "runmirror-demo:test"


@dataclass
class Project:
    """docker-compose.yml, with the stand-ins as its images and nothing else changed."""

    docker: Docker
    port: int
    override: Path
    env_file: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __call__(self, *words: str, check: bool = True) -> str:
        files = ("--file", "docker-compose.yml", "--file", str(self.override), "--env-file", str(self.env_file))
        return self.docker.compose(*files, *words, cwd=REPOSITORY, check=check)

    def container(self, service: str) -> dict[str, object]:
        """What the engine says of a service's container."""
        found: list[dict[str, object]] = json.loads(
            self.docker("inspect", self("ps", "--all", "--quiet", service).strip())
        )
        return found[0]


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """An engine with the stand-ins. Where there can be none this fails: whoever runs these tests wants it.

    `RUNMIRROR_TEST_DOCKER_SOCKET` names another engine instead, for a machine that reaches the official images.
    """
    assert COMPOSE.exists(), f"{COMPOSE} is not there: run make test-docker"
    if own := os.environ.get("RUNMIRROR_TEST_DOCKER_SOCKET"):
        yield Docker(Path(own), COMPOSE)
        return
    with tempfile.TemporaryDirectory(prefix="runmirror-docker-") as folder, engine(Path(folder), COMPOSE) as started:
        stand_ins.make_all(started, Path(folder) / "stand-ins")
        yield started


@pytest.fixture(scope="session")
def override(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds both images by the compose file, of the stand-in base and over this machine's network."""
    made_here = docker("image", "ls", "--quiet", stand_ins.PYTHON).strip()
    build = {"build": {"network": "host", "args": {"PYTHON_IMAGE": stand_ins.PYTHON}}} if made_here else {}
    file = tmp_path_factory.mktemp("compose") / "override.json"
    file.write_text(json.dumps({"services": {"api": build, "demo": build}}))
    docker.environment |= {"RUNMIRROR_IMAGE": IMAGE, "RUNMIRROR_DEMO_IMAGE": DEMO_IMAGE}
    if made_here:
        docker.environment |= {"POSTGRES_IMAGE": stand_ins.POSTGRES, "AZURITE_IMAGE": stand_ins.AZURITE}
    Project(docker, 0, file, REPOSITORY / "docker" / "demo.env")("build", "api", "demo")
    return file


@contextmanager
def project(docker: Docker, override: Path, env_file: Path) -> Iterator[Project]:
    port = free_port()
    docker.environment["PUBLISH"] = f"127.0.0.1:{port}"
    made = Project(docker, port, override, env_file)
    try:
        yield made
    finally:
        made("down", "--volumes", "--timeout", "30")
