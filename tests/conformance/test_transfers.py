"""Transfers that pass the server by: on a folder both servers refuse alike, on Azure Blob both serve the client."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from azure.storage.blob import BlobServiceClient
from mlflow.tracking import MlflowClient

from runmirror.settings import Settings
from tests.artifacts.azurite import ACCOUNT, azurite
from tests.artifacts.live import live_server
from tests.conformance.compare import Both, Side
from tests.conformance.servers import mlflow_server

__all__ = ["azurite"]

MULTIPART = "/api/2.0/mlflow-artifacts/mpu"
PRESIGNED = "/api/2.0/mlflow-artifacts/presigned"
ROOT = "0/{run}/artifacts"
PART = {"path": "f", "upload_id": "x", "num_parts": 2, "parts": [{"part_number": 1, "url": "http://x/?blockid=eA=="}]}
INVALID = (400, "INVALID_PARAMETER_VALUE")


@pytest.fixture
def run(both: Both) -> Both:
    both.call("POST", "runs/create", json={"experiment_id": "0", "start_time": 1000})
    both.bind("run", "run.info.run_id")
    both.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{ROOT}/f", content=b"1")
    return both


def test_a_folder_takes_no_parts_and_signs_nothing(run: Both) -> None:
    for prefix in ("/api/", "/ajax-api/"):
        for step in ("create", "complete", "abort"):
            run.call("POST", f"{MULTIPART}/{step}/{ROOT}".replace("/api/", prefix), json=PART)
        run.call("GET", f"{PRESIGNED}/{ROOT}/f".replace("/api/", prefix))
        for way in ("upload", "download"):
            path = f"{prefix}2.0/mlflow/artifacts/presigned-{way}-url"
            run.call("POST", path, json={"run_id": "{run}", "path": "f"})


def test_a_path_that_climbs_is_refused_before_anything_else(run: Both) -> None:
    for path in ("..%2f..%2fx", "%252e%252e/x", "a/%2e%2e/%2e%2e/x"):
        for step in ("create", "complete", "abort"):
            run.call("POST", f"{MULTIPART}/{step}/{path}", json=PART)
        run.call("GET", f"{PRESIGNED}/{path}")
    for path in ("../x", "/etc/passwd", "a/../../x", "%2e%2e/x"):
        for way in ("upload", "download"):
            run.call("POST", f"artifacts/presigned-{way}-url", json={"run_id": "{run}", "path": path})


@pytest.mark.parametrize("body", [{}, {"num_parts": 1}, {"path": "f", "num_parts": "x"}, {"path": 7}])
def test_a_bad_upload_is_refused(run: Both, body: dict[str, object]) -> None:
    run.call("POST", f"{MULTIPART}/create/{ROOT}", json=body)


def test_an_upload_without_parts_is_refused(run: Both) -> None:
    for body in ({"path": "f"}, {"path": "f", "parts": []}):
        run.call("POST", f"{MULTIPART}/complete/{ROOT}", json=body)


@pytest.mark.parametrize(
    ("way", "body"),
    [
        ("upload", {}), ("upload", {"path": "f"}), ("upload", {"run_id": "{run}"}),
        ("upload", {"run_id": "{run}", "model_id": "m-1", "path": "f"}), ("upload", {"run_id": "f" * 32, "path": "f"}),
        ("upload", {"model_id": "m-" + "0" * 32, "path": "f"}), ("download", {}), ("download", {"path": "f"}),
        ("download", {"run_id": "{run}"}), ("download", {"run_id": "f" * 32, "path": "f"}),
        ("download", {"run_id": "{run}", "path": "f", "expiration": 0}),
        ("download", {"run_id": "{run}", "path": "f", "expiration": 604801}),
    ],
)  # fmt: skip
def test_a_bad_request_for_a_url_is_refused(run: Both, way: str, body: dict[str, object]) -> None:
    run.call("POST", f"artifacts/presigned-{way}-url", json=body)


@pytest.fixture(scope="module")
def on_azure(
    azurite: str, tmp_path_factory: pytest.TempPathFactory, runmirror_database_url: str
) -> Iterator[tuple[str, str]]:
    """MLflow's server and ours, each over a container of its own."""
    places = []
    with BlobServiceClient.from_connection_string(azurite) as service:
        for container in ("mlflow", "runmirror"):
            service.create_container(container)
            places.append(f"wasbs://{container}@{ACCOUNT}.blob.core.windows.net/here")
    settings = Settings(
        database_url=runmirror_database_url, artifacts_destination=places[1], azure_storage_connection_string=azurite,
        direct_transfers="offered",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("azure")
    with (
        mlflow_server(folder, places[0], AZURE_STORAGE_CONNECTION_STRING=azurite) as theirs,
        live_server(settings, folder) as ours,
    ):
        yield theirs, ours.url


def test_on_azure_the_client_uploads_in_parts_to_either_server(
    on_azure: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told nothing: both servers offer it."""
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE", "100000")
    monkeypatch.setenv("MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE", "60000")
    file = tmp_path / "large.bin"
    file.write_bytes(os.urandom(200_000))

    def act(url: str) -> object:
        client = MlflowClient(url)
        run = client.create_run("0").info.run_id
        client.log_artifact(run, str(file), "d")
        assert Path(client.download_artifacts(run, "d/large.bin", str(tmp_path))).read_bytes() == file.read_bytes()
        listed = [(found.path, found.file_size) for found in client.list_artifacts(run, "d")]
        body = {"path": str(file), "num_parts": 2}
        created = httpx.post(f"{url}{MULTIPART}/create/0/{run}/artifacts", json=body, trust_env=False).json()
        parts = [sorted(credential) for credential in created["credentials"]]
        return [listed, parts, [credential["part_number"] for credential in created["credentials"]]]

    sides = [Side(name, url, httpx.Client()) for name, url in zip(("mlflow", "ours"), on_azure, strict=True)]
    Both(*sides).each(act)
    for side in sides:
        side.client.close()


def test_on_azure_what_mlflow_offers_is_offered(on_azure: tuple[str, str]) -> None:
    told = [httpx.get(f"{url}/api/3.0/mlflow/server-info", trust_env=False).json() for url in on_azure]
    assert [info["multipart_uploads_enabled"] for info in told] == [True, True]
    # MLflow signs no downloads from Azure Blob; its client uses ours.
    assert [info["multipart_downloads_enabled"] for info in told] == [False, True]
