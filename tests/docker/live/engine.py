"""A Docker engine of the test's own: its folder, its socket, no rule of the machine's firewall touched."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from tests.server import clean_environment

START_S = 30.0
STOP_S = 60.0
DEADLINE_S = 900.0
# Debian's, and not another client that comes first on the PATH: this one speaks BuildKit without a plugin.
DOCKER = "/usr/bin/docker"


class Docker:
    """The client of one engine."""

    def __init__(self, socket: Path, compose: Path) -> None:
        self.environment = clean_environment({"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"})
        self._compose = compose

    def __call__(self, *words: str, given: bytes | None = None, check: bool = True) -> str:
        """What `docker …` prints."""
        return self._run([DOCKER, *words], given=given, check=check)

    def compose(self, *words: str, cwd: Path, check: bool = True) -> str:
        return self._run([str(self._compose), *words], cwd=cwd, check=check)

    def _run(self, command: list[str], *, given: bytes | None = None, cwd: Path | None = None, check: bool) -> str:
        done = subprocess.run(
            command, env=self.environment, input=given, cwd=cwd, capture_output=True, check=False, timeout=DEADLINE_S
        )
        output = done.stdout.decode()
        if check and done.returncode != 0:
            errors = done.stderr.decode()[-6000:]
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{output[-6000:]}\n{errors}")
        return output if check else f"{done.returncode}\n{output}{done.stderr.decode()}"


@contextmanager
def engine(folder: Path, compose: Path) -> Iterator[Docker]:
    """Start dockerd, and end it with all that it runs. Raises `AssertionError` where that is not possible."""
    for program in ("dockerd", "containerd", "runc", DOCKER):
        assert which(program), f"{program} is not here: apt-get install docker.io (make test-docker does it, as root)"
    assert os.geteuid() == 0, "a Docker engine wants root"
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    command = [
        "dockerd", "--host", f"unix://{socket}", "--pidfile", str(folder / "pid"),
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "run"),
        "--iptables=false", "--ip-forward=false", "--ip-masq=false",
        "--bridge=none", "--default-address-pool", "base=172.30.0.0/17,size=24",
    ]  # fmt: skip
    with log.open("wb") as sink:
        child = subprocess.Popen(command, env=clean_environment({}), stdout=sink, stderr=sink)
    docker = Docker(socket, compose)
    try:
        _wait(docker, child, log)
        yield docker
        for running in docker("ps", "--quiet").split():
            docker("kill", running, check=False)
    finally:
        child.terminate()
        child.wait(STOP_S)


def _wait(docker: Docker, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not docker("info", "--format", "{{.ServerVersion}}", check=False).startswith("0\n"):
        said = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        assert child.poll() is None, f"no Docker engine can run on this machine; dockerd said:\n{said}"
        assert time.monotonic() < deadline, f"dockerd is not ready after {START_S:.0f} s:\n{said}"
        time.sleep(0.2)
