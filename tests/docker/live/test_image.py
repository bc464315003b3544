"""The image that docker/Dockerfile makes."""

import json
from pathlib import Path

from tests.docker.live.conftest import IMAGE
from tests.docker.live.engine import Docker

LARGEST_BYTES = 400_000_000


def test_the_image_is_small_says_what_it_is_and_has_no_compiler(docker: Docker, override: Path) -> None:
    [image] = json.loads(docker("image", "inspect", IMAGE))
    print(f"the image has {image['Size'] / 1e6:.0f} MB")
    assert image["Size"] < LARGEST_BYTES
    assert image["Config"]["User"] == "10001:10001"
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "python" in labels["org.opencontainers.image.base.name"]
    tools = "command -v gcc cc make pip pip3; find / -xdev -name 'cc1*' -o -xdev -name 'pip' -type d 2>/dev/null; true"
    found = docker("run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c", tools).split()
    assert [path for path in found if not path.startswith("/usr/lib/python3/")] == []


def test_one_container_alone_serves_pages_and_database_without_any_right(docker: Docker, override: Path) -> None:
    rights = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    quick = ("--health-interval", "1s", "--network", "none")
    name = docker("run", "--detach", *rights, *quick, "--env", "RUNMIRROR_AUTH=token", IMAGE).strip()
    try:
        wait = "for i in $(seq 600); do runmirror-healthcheck 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
        docker("exec", name, "sh", "-c", wait)
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:5000/PATH').read().decode())"
        assert '"database":"ok"' in docker("exec", name, "python", "-c", ask.replace("PATH", "readyz"))
        assert "<!doctype html" in docker("exec", name, "python", "-c", ask.replace("PATH", ""))
        assert docker("exec", name, "runmirror", "token", "create", "me", "--admin").startswith("rmt_")
        assert docker("exec", name, "sh", "-c", "touch /opt/x /usr/x 2>/dev/null; ls /opt /usr").split().count("x") == 0
        docker("stop", "--time", "40", name)
        assert json.loads(docker("inspect", name))[0]["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", "--volumes", name)


def test_a_server_without_authentication_does_not_start_in_a_container(docker: Docker, override: Path) -> None:
    said = docker("run", "--rm", "--network", "none", IMAGE, check=False)
    assert said.startswith("1\n")
    assert "refusing to listen on 0.0.0.0 without authentication" in said
