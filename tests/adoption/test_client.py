"""The client that a job installs: what it changes in the environment, and to whom it shows a token."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points

import mlflow
import pytest
import requests

import runmirror_client
from runmirror_client import auth
from tests.azureml_emulator.process import EmulatorProcess, start_emulator
from tests.server import clean_environment

GUID = "11111111-2222-3333-4444-555555555555"
SERVER = "https://tracking.example"


@pytest.fixture(autouse=True)
def mlflow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in before:
        if name.startswith(("MLFLOW_", "RUNMIRROR_", "AZUREML_")):
            monkeypatch.delenv(name)
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]
    auth.forget()
    os.environ.clear()
    os.environ.update(before)


class Listener:
    """A server that notes who showed which credential; it answers every request with the same error."""

    def __init__(self) -> None:
        self.shown: list[str | None] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.shown.append(self.headers.get("Authorization"))
                body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}).encode()
                self.send_response(404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture(scope="module")
def entra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with start_emulator(tmp_path_factory.mktemp("entra"), token_lifetime=4) as emulator:
        yield emulator


def in_reach_of(entra: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, a proxy and a scope, as a job with a service principal has them."""
    entra.reset()
    for name, value in entra.env().items():
        if name not in {"PATH", "LANG", "TMPDIR"}:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RUNMIRROR_TOKEN_SCOPE", "https://management.azure.com/.default")


def ask() -> str:
    """Ask the server by MLflow's client for what it does not have: what the client says then."""
    with pytest.raises(mlflow.MlflowException) as refused:
        mlflow.MlflowClient().get_run("happy_lion")
    return str(refused.value)


def test_activate_puts_back_what_azure_ml_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://eastus.api.azureml.ms/mlflow/v1.0/subscriptions/s")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "azure's")
    monkeypatch.setenv("MLFLOW_RUN_ID", "happy_lion")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", GUID)
    for _ in range(2):
        assert runmirror_client.activate(SERVER + "/") == SERVER
        assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri()) == (SERVER, SERVER)
        told = {name: value for name, value in os.environ.items() if name.startswith(("MLFLOW_", "RUNMIRROR_"))}
        assert told == {
            "MLFLOW_TRACKING_URI": SERVER,
            "MLFLOW_REGISTRY_URI": SERVER,
            "MLFLOW_TRACKING_AUTH": "runmirror",
            "MLFLOW_RUN_ID": "happy_lion",
            "MLFLOW_EXPERIMENT_ID": GUID,
            "RUNMIRROR_TRACKING_URI": SERVER,
        }


def test_of_an_experiments_name_and_azures_id_the_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", GUID)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "jobs")
    runmirror_client.activate(SERVER)
    assert (os.environ.get("MLFLOW_EXPERIMENT_ID"), os.environ["MLFLOW_EXPERIMENT_NAME"]) == (None, "jobs")


def test_azures_token_goes_even_if_the_address_was_right_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "my own")
    runmirror_client.activate(SERVER)
    assert os.environ["MLFLOW_TRACKING_TOKEN"] == "my own"
    monkeypatch.setenv("AZUREML_RUN_ID", "happy_lion")
    runmirror_client.activate(SERVER)
    assert "MLFLOW_TRACKING_TOKEN" not in os.environ


@pytest.mark.parametrize(
    "address", ["azureml://eastus.api.azureml.ms/x", "tracking.example", "https://", "https://user:pw@tracking.example"]
)
def test_what_is_no_address_of_a_server_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a runmirror server"):
        runmirror_client.activate(address)
    with pytest.raises(ValueError, match="set RUNMIRROR_TRACKING_URI"):
        runmirror_client.activate()


def test_the_provider_is_found_by_its_entry_point() -> None:
    [found] = entry_points(group="mlflow.request_auth_provider", name="runmirror")
    assert found.load() is auth.RunmirrorAuthProvider


def test_a_static_token_goes_to_the_server_and_nowhere_else(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNMIRROR_TOKEN", "secret")
    runmirror_client.activate(listener.url)
    ask()
    assert listener.shown == ["Bearer secret"]
    other = Listener()
    try:
        assert requests.get(other.url, auth=auth.RunmirrorAuth(), timeout=10).status_code == 404
        assert other.shown == [None]
        # An address that only begins like the server's.
        for url in (
            listener.url + "@evil.example/x",
            listener.url.replace("127.0.0.1", "127.0.0.1.evil.example") + "/x",
        ):
            request = requests.Request("GET", url, auth=auth.RunmirrorAuth()).prepare()
            assert "Authorization" not in request.headers, url
    finally:
        other.close()


def test_no_token_is_sent_over_plain_http_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNMIRROR_TOKEN", "secret")
    for server, is_signed in (("http://tracking.example", False), (SERVER, True), ("http://localhost:5000", True)):
        runmirror_client.activate(server)
        request = requests.Request("GET", f"{server}/api", auth=auth.RunmirrorAuth()).prepare()
        assert ("Authorization" in request.headers) is is_signed, server


def test_tokens_of_entra_are_kept_and_renewed_before_they_end(
    listener: Listener, entra: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_reach_of(entra, monkeypatch)
    runmirror_client.activate(listener.url)
    deadline = time.monotonic() + 60
    while len(set(listener.shown)) < 3 and time.monotonic() < deadline:
        ask()
    shown = [str(told) for told in listener.shown]
    assert len(set(shown)) == 3
    assert len(shown) > 3, "a token serves many requests"
    assert all(told.startswith("Bearer ey") for told in shown)
    asked = [request for request in entra.requests() if request["path"].endswith("/token")]
    assert len(asked) == 3


def test_while_entra_is_away_the_last_token_serves_to_its_end(
    listener: Listener, entra: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_reach_of(entra, monkeypatch)
    runmirror_client.activate(listener.url)
    ask()
    entra.add_fault("status", {"path": "/token"}, status=400, times=-1, body={"error": "invalid_client"})
    deadline = time.monotonic() + 60
    while "failed to retrieve a token" not in (told := ask()) and time.monotonic() < deadline:
        pass
    assert "failed to retrieve a token" in told
    entra.clear_faults()
    assert len(set(listener.shown)) == 1
    ask()
    assert len(set(listener.shown)) == 2


def test_the_client_imports_nothing_of_the_server_and_azure_only_when_asked(listener: Listener) -> None:
    program = (
        "import sys, runmirror_client; runmirror_client.activate(sys.argv[1]); import runmirror_client.auth; "
        "print([name for name in sys.modules if (name + '.').startswith(('runmirror.', 'azure.identity.'))])"
    )
    command = [sys.executable, "-c", program, listener.url]
    done = subprocess.run(command, env=clean_environment({}), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
