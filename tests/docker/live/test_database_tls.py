"""A Postgres that is reached over TLS, as Azure's: everybody who connects checks who answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from azureml_emulator.tls import make_certificates
from tests.docker.live import stand_ins
from tests.docker.live.conftest import IMAGE
from tests.docker.live.engine import Docker

NETWORK, DATABASE, SERVER = "runmirror-tls", "runmirror-tls-db", "runmirror-tls-server"
WITH_TLS = (
    "install -o postgres -m 600 /tls/server.key /var/lib/postgresql/server.key; exec docker-entrypoint.sh postgres "
    "-c ssl=on -c ssl_cert_file=/tls/server.pem -c ssl_key_file=/var/lib/postgresql/server.key"
)
READY = "for i in $(seq 300); do pg_isready -h 127.0.0.1 -U runmirror && exit 0; sleep 0.1; done; exit 1"
SERVES = "for i in $(seq 300); do runmirror-healthcheck server 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
CREATE_RUN = """
import json, urllib.request as r
body = json.dumps({"experiment_id": "0"}).encode()
ask = r.Request("http://127.0.0.1:5000/api/2.0/mlflow/runs/create", body, {"Content-Type": "application/json"})
print(json.load(r.urlopen(ask))["run"]["info"]["status"])
"""
HOW_MANY = """
SELECT count(*), bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
WHERE application_name LIKE 'runmirror%'
"""


@pytest.fixture
def tls(docker: Docker, override: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of the certificates of a Postgres called `db`."""
    folder = tmp_path / "tls"
    folder.mkdir()
    make_certificates(folder, ("db",))
    tmp_path.chmod(0o755)
    image = (
        stand_ins.POSTGRES if docker("image", "ls", "--quiet", stand_ins.POSTGRES).strip() else "postgres:17.6-bookworm"
    )
    docker("network", "create", NETWORK)
    try:
        told = [f"--env=POSTGRES_{name}=runmirror" for name in ("USER", "DB", "PASSWORD")]
        place = ("--network", NETWORK, "--network-alias", "db", "--volume", f"{folder}:/tls:ro")
        docker("run", "--detach", "--name", DATABASE, *place, *told, "--entrypoint", "sh", image, "-c", WITH_TLS)
        docker("exec", DATABASE, "sh", "-c", READY)
        yield folder
    finally:
        docker("rm", "--force", "--volumes", SERVER, DATABASE, check=False)
        docker("network", "rm", NETWORK)


def test_every_connection_is_by_tls_and_another_authority_is_refused(docker: Docker, tls: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other, ("db",))
    url = "postgresql://runmirror:runmirror@db:5432/runmirror?sslmode=verify-full"
    told = [
        f"--env={name}={value}"
        for name, value in {
            "RUNMIRROR_DATABASE_URL": url, "PGSSLROOTCERT": "/tls/ca.pem", "RUNMIRROR_INSECURE_NO_AUTH": "true",
        }.items()
    ]  # fmt: skip
    run = ("run", "--network", NETWORK, *told, "--volume")
    refused = docker(*run, f"{other}:/tls:ro", "--rm", IMAGE, "migrate", check=False)
    assert refused.startswith("1\n")
    assert "certificate verify failed" in refused

    assert "is at revision" in docker(*run, f"{tls}:/tls:ro", "--rm", IMAGE, "migrate")
    docker(*run, f"{tls}:/tls:ro", "--detach", "--name", SERVER, IMAGE, "serve")
    docker("exec", SERVER, "sh", "-c", SERVES)
    assert docker("exec", SERVER, "python", "-c", CREATE_RUN).strip() == "RUNNING"
    ask = (
        "psql",
        "--username",
        "runmirror",
        "--no-align",
        "--tuples-only",
        "--field-separator=,",
        "--command",
        HOW_MANY,
    )
    number, all_by_tls = docker("exec", DATABASE, *ask).strip().split(",")
    assert int(number) >= 3
    assert all_by_tls == "t"
