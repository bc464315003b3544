"""docker-compose.yml as a user starts it: one command, secure, and everything works."""

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docker.live.conftest import REPOSITORY, Project, project
from tests.docker.live.engine import Docker
from tests.server import clean_environment

LOG_AND_READ_BACK = """
import json, sys, tempfile, mlflow
from pathlib import Path
mlflow.set_experiment("containers")
with mlflow.start_run() as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_metrics({"loss": 0.5}, step=1)
    mlflow.log_text("hello from outside", "notes/hello.txt")
read = mlflow.get_run(run.info.run_id)
text = mlflow.artifacts.load_text(read.info.artifact_uri + "/notes/hello.txt")
print(json.dumps([run.info.run_id, read.data.params, read.data.metrics, text]))
"""
HEALTHY_S = 120.0


@pytest.fixture(scope="module")
def up(docker: Docker, override: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    nothing_set = tmp_path_factory.mktemp("env") / ".env"
    nothing_set.touch()
    docker.environment["RUNMIRROR_ENV_FILE"] = str(nothing_set)
    with project(docker, override, nothing_set) as made:
        made("up", "--detach")
        yield made
    del docker.environment["RUNMIRROR_ENV_FILE"]


def wait_healthy(up: Project, service: str) -> None:
    deadline = time.monotonic() + HEALTHY_S
    while (state := up.container(service)["State"]["Health"])["Status"] != "healthy":  # type: ignore[index]
        assert time.monotonic() < deadline, f"{service} is {state}:\n{up('logs', service)}"
        time.sleep(0.5)


def token(up: Project) -> str:
    return up("exec", "-T", "api", "runmirror", "token", "create", "me", "--admin").strip()


def test_one_command_starts_all_of_it_and_a_client_with_a_token_logs_through_it(up: Project) -> None:
    environment = clean_environment({"MLFLOW_TRACKING_URI": up.url, "MLFLOW_TRACKING_TOKEN": token(up)})
    logged = subprocess.run(
        [sys.executable, "-c", LOG_AND_READ_BACK], env=environment, capture_output=True, text=True, check=False
    )
    assert logged.returncode == 0, logged.stderr
    run_id, params, metrics, text = json.loads(logged.stdout.splitlines()[-1])
    assert (params, metrics, text) == ({"lr": "0.1"}, {"loss": 0.5}, "hello from outside")
    stored = up("exec", "-T", "azurite", "sh", "-c", "grep -rl 'hello from outside' /data | wc -l")
    assert int(stored) > 0, "the artifact is not in the blob store"

    up("restart", "api", "postgres")
    wait_healthy(up, "api")
    again = httpx.get(
        f"{up.url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, auth=("me", token(up)), trust_env=False
    )
    assert again.json()["run"]["info"]["status"] == "FINISHED"


def test_who_has_no_token_gets_nothing_and_other_names_are_refused(up: Project) -> None:
    search = f"{up.url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(search, trust_env=False).status_code == 401
    known = ("me", token(up))
    assert httpx.get(search, auth=known, trust_env=False).status_code == 200
    assert httpx.get(search, auth=known, headers={"Host": "attacker.example"}, trust_env=False).status_code == 403
    assert httpx.get(f"{up.url}/", auth=known, trust_env=False).text.startswith("<!doctype html>")


def test_only_the_api_is_published_and_only_on_loopback(up: Project) -> None:
    bound: list[dict[str, str]] = []
    for service in ("api", "worker", "postgres", "azurite"):
        ports: dict[str, Any] = up.container(service)["NetworkSettings"]["Ports"]  # type: ignore[index]
        bound += [binding for bindings in ports.values() for binding in bindings or ()]
    assert bound == [{"HostIp": "127.0.0.1", "HostPort": str(up.port)}]


@pytest.mark.parametrize("service", ["api", "worker"])
def test_our_containers_run_healthy_without_rights_as_nobody_on_a_read_only_root(up: Project, service: str) -> None:
    wait_healthy(up, service)
    host: Any = up.container(service)["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    look = "id -u; touch /x /opt/x 2>&1 | grep -c 'Read-only file system'; grep CapEff /proc/1/status | cut -f2"
    assert up("exec", "-T", service, "sh", "-c", look).split() == ["10001", "2", "0000000000000000"]


def test_secrets_are_made_once_and_are_for_their_user_only(up: Project) -> None:
    before = up("exec", "-T", "api", "sh", "-c", "ls -ln /secrets; cat /secrets/*")
    assert [line.split()[:3] for line in before.splitlines() if line.startswith("-")] == [
        ["-rw-------", "1", "10001"]
    ] * 5
    up("up", "--detach")
    assert up("exec", "-T", "api", "sh", "-c", "ls -ln /secrets; cat /secrets/*") == before


def test_what_helm_test_asks_in_a_cluster_is_answered_here_too(up: Project) -> None:
    pod = REPOSITORY / "helm" / "runmirror" / "templates" / "tests" / "reachable.yaml"
    found = re.search(r"- \|\n(.*?)\n +- \{\{", pod.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    asked = ("exec", "-T", "api", "python", "-c", textwrap.dedent(found[1]), "http://api:5000")
    assert up(*asked, "token").startswith("200 ")
    assert up(*asked, "none", check=False).startswith("1\n"), "nobody is let in without a token"


def test_a_worker_that_hangs_is_unhealthy(up: Project) -> None:
    wait_healthy(up, "worker")
    old = "touch -d '-2 minutes' /tmp/runmirror-worker-alive; runmirror-healthcheck worker; echo $?"
    assert up("exec", "-T", "worker", "sh", "-c", old).strip() == "1"
