"""The profile `demo` of docker-compose.yml: a worker in one container mirrors into an emulator in another."""

from pathlib import Path

from tests.docker.live.conftest import REPOSITORY, project
from tests.docker.live.engine import Docker


def test_the_demo_trains_mirrors_and_compares_inside_containers(docker: Docker, override: Path) -> None:
    with project(docker, override, REPOSITORY / "docker" / "demo.env") as demo:
        said = demo("run", "--rm", "--no-TTY", "demo", check=False)
        assert said.startswith("0\n"), said + demo("logs", "worker", "emulator")
        assert "both sides are equal: 6 params, " in said
        assert "1,000 metric points" in said
        assert "the workspace, by its own REST API" in said
