"""Tokens are really checked, and hosts that are not emulated cannot be reached."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import jwt
import pytest

from tests.azureml_emulator.process import SERVER, EmulatorProcess, start_emulator
from tests.azureml_emulator.rest import Rest

ARM = "https://management.azure.com"
LOGIN = "https://login.microsoftonline.com"
Form = dict[str, str | None]


def _grant(emulator: EmulatorProcess, changes: Form | None = None, path: str = "/oauth2/v2.0/token") -> httpx.Response:
    """Ask for a token by a good form in which some fields are changed, or left out where they are None."""
    form: Form = {
        "grant_type": "client_credentials",
        "client_id": emulator.client_id,
        "client_secret": emulator.client_secret,
        "scope": "https://management.azure.com/.default",
        **(changes or {}),
    }
    given = {name: value for name, value in form.items() if value is not None}
    with emulator.client() as client:
        return client.post(f"{LOGIN}/{emulator.tenant_id}{path}", data=given)


def _workspace(emulator: EmulatorProcess, token: str | None) -> httpx.Response:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with emulator.client() as client:
        return client.get(f"{ARM}{emulator.workspace_id}?api-version=2022-05-01", headers=headers)


def _discovery(emulator: EmulatorProcess, token: str) -> httpx.Response:
    """A data-plane call that needs nothing but a token."""
    url = f"{emulator.api_url}/history/v1.0{emulator.workspace_id}/experiments:query"
    with emulator.client() as client:
        return client.post(url, headers={"Authorization": f"Bearer {token}"}, json={})


def test_a_token_carries_the_claims_that_clients_read(emulator: EmulatorProcess) -> None:
    answer = _grant(emulator).json()
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 3600
    assert (claims["aud"], claims["tid"]) == (ARM, emulator.tenant_id)
    assert claims["appid"] == emulator.client_id
    assert 3590 < claims["exp"] - time.time() < 3602


def test_openid_configuration_names_the_token_endpoint(emulator: EmulatorProcess) -> None:
    base = f"{LOGIN}/{emulator.tenant_id}"
    with emulator.client() as client:
        new = client.get(f"{base}/v2.0/.well-known/openid-configuration").json()
        old = client.get(f"{base}/.well-known/openid-configuration").json()
        keys = client.get(new["jwks_uri"]).json()["keys"]
    assert new["token_endpoint"] == f"{base}/oauth2/v2.0/token"
    assert old["token_endpoint"] == f"{base}/oauth2/token"
    token = emulator.token()
    key = jwt.PyJWK(keys[0]).key
    assert jwt.decode(token, key, algorithms=["RS256"], audience=ARM)["tid"] == emulator.tenant_id


@pytest.mark.parametrize(
    "scope", ["https://management.azure.com/.default", "https://management.core.windows.net//.default"]
)
def test_both_arm_audiences_open_arm_and_data_plane(emulator: EmulatorProcess, scope: str) -> None:
    token = emulator.token(scope)
    assert _workspace(emulator, token).json()["properties"]["provisioningState"] == "Succeeded"
    assert _discovery(emulator, token).status_code == 200


def test_a_token_for_another_audience_is_refused(emulator: EmulatorProcess) -> None:
    token = emulator.token("https://graph.microsoft.com/.default")
    refused = _workspace(emulator, token)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "InvalidAuthenticationTokenAudience"
    assert _discovery(emulator, token).status_code == 401


def test_mlflow_calls_without_a_token_get_no_error_code(rest: Rest) -> None:
    answer = rest.call("GET", "mlflow/v2.0", "/api/2.0/mlflow/nowhere", headers={"Authorization": ""})
    assert answer.status_code == 401
    assert "error_code" not in answer.json()
    assert rest.emulator.requests(unknown=True) == []


def test_a_token_signed_by_another_key_is_refused(emulator: EmulatorProcess) -> None:
    head, body, signature = emulator.token().split(".")
    forged = ".".join([head, body, signature[:-8] + "AAAAAAA" + signature[-1]])
    assert _workspace(emulator, forged).json()["error"]["code"] == "InvalidAuthenticationToken"
    assert _workspace(emulator, None).status_code == 401
    unsigned = jwt.encode({"aud": ARM, "exp": int(time.time()) + 60}, "", algorithm="none")
    assert _workspace(emulator, unsigned).status_code == 401


def test_a_token_dies_when_its_time_is_over(emulator: EmulatorProcess) -> None:
    emulator.change_settings(token_lifetime=1)
    token = emulator.token()
    assert _discovery(emulator, token).status_code == 200
    expiry = jwt.decode(token, options={"verify_signature": False})["exp"]
    time.sleep(expiry - time.time() + 0.05)  # its expiry is what this test is about
    assert _workspace(emulator, token).json()["error"]["code"] == "ExpiredAuthenticationToken"
    assert _discovery(emulator, token).status_code == 401


def test_a_wrong_secret_is_an_invalid_client(emulator: EmulatorProcess) -> None:
    answer = _grant(emulator, {"client_secret": "wrong"})
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert answer.json()["error_codes"] == [7000215]
    assert "AADSTS7000215" in answer.json()["error_description"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"client_id": "someone"}, "unauthorized_client"),
        ({"client_secret": None}, "invalid_client"),
        ({"scope": "https://management.azure.com/user"}, "invalid_scope"),
        ({"scope": "https://example.org/.default"}, "invalid_resource"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_a_bad_grant_is_refused_in_the_words_of_oauth(emulator: EmulatorProcess, changes: Form, word: str) -> None:
    assert _grant(emulator, changes).json()["error"] == word


def test_the_older_endpoint_takes_a_resource(emulator: EmulatorProcess) -> None:
    answer = _grant(emulator, {"scope": None, "resource": ARM}, "/oauth2/token").json()
    assert answer["expires_in"] == "3600"
    assert _workspace(emulator, answer["access_token"]).status_code == 200


def test_a_client_assertion_stands_in_for_the_secret(emulator: EmulatorProcess) -> None:
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    fresh = jwt.encode({"sub": "x", "exp": int(time.time()) + 60}, "k" * 32)
    stale = jwt.encode({"sub": "x", "exp": int(time.time()) - 60}, "k" * 32)
    signed_in: Form = {"client_secret": None, "client_assertion_type": kind}
    assert _grant(emulator, {**signed_in, "client_assertion": fresh}).status_code == 200
    assert "AADSTS700024" in _grant(emulator, {**signed_in, "client_assertion": stale}).json()["error_description"]
    assert _grant(emulator, {**signed_in, "client_assertion": "x"}).status_code == 401


def test_managed_identity_gives_tokens_over_plain_http(emulator: EmulatorProcess) -> None:
    query = {"api-version": "2019-08-01", "resource": ARM}
    headers = {"X-IDENTITY-HEADER": emulator.ready["identity_header"], "Metadata": "true"}
    with emulator.control() as control:
        answer = control.get(emulator.ready["identity_endpoint"], params=query, headers=headers).json()
        assert control.get(emulator.ready["identity_endpoint"], params=query).status_code == 404
    assert int(answer["expires_on"]) > time.time()
    assert _workspace(emulator, answer["access_token"]).status_code == 200


def test_arm_knows_the_subscription_and_the_workspace_in_any_case(rest: Rest) -> None:
    emulator = rest.emulator
    headers = {"Authorization": f"Bearer {rest.token}"}
    listed = rest.client.get(f"{ARM}/subscriptions?api-version=2022-12-01", headers=headers).json()["value"]
    assert [entry["subscriptionId"] for entry in listed] == [emulator.ready["subscription_id"]]
    shouting = emulator.workspace_id.replace("resourceGroups", "RESOURCEGROUPS")
    found = rest.client.get(f"{ARM}{shouting}?api-version=2022-05-01", headers=headers).json()
    assert found["id"] == emulator.workspace_id
    missing = rest.client.get(f"{ARM}{emulator.workspace_id}x?api-version=2022-05-01", headers=headers)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")
    assert rest.call("POST", "HISTORY/v1.0", "/experiments:query", json={}).status_code == 200


def test_discovery_needs_no_token_and_has_every_key(emulator: EmulatorProcess) -> None:
    with emulator.client() as client:
        found = client.get(f"{emulator.api_url}/discovery").json()
    wanted = {"api", "experimentation", "history", "hyperdrive", "modelmanagement", "studio"}
    assert wanted <= found.keys()
    assert found["studio"] == "https://ml.azure.com"


def test_the_proxy_leads_nowhere_else(emulator: EmulatorProcess) -> None:
    with emulator.client() as client:
        for url in ("https://example.com/", "https://management.azure.com:8443/", "http://management.azure.com/"):
            if url.startswith("https"):
                with pytest.raises(httpx.ProxyError, match="403"):
                    client.get(url)
            else:
                assert client.get(url).status_code == 403
    refused = [(request["method"], request["host"]) for request in emulator.requests(refused=True)]
    assert ("CONNECT", "example.com:443") in refused
    assert len(refused) == 3


def test_only_the_private_authority_vouches_for_the_emulator(emulator: EmulatorProcess) -> None:
    with httpx.Client(proxy=emulator.proxy_url, trust_env=False) as client, pytest.raises(httpx.ConnectError):
        client.get(f"{ARM}/metadata/endpoints")


def test_keys_are_for_the_owner_only(emulator: EmulatorProcess) -> None:
    folder = Path(emulator.ca_file).parent
    assert (folder / "server.key").stat().st_mode & 0o777 == 0o600
    assert not list(folder.glob("ca*.key"))


def test_the_command_line_names_the_workspace(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    options = {"region": "westeurope", "workspace": "Team-1", "resource_group": "rg", "ready_file": str(ready_file)}
    with start_emulator(tmp_path, **options, client_secret="chosen", token_lifetime=2) as emulator:
        assert emulator.api_url == "https://westeurope.api.azureml.ms"
        assert emulator.workspace_id.endswith(
            "/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/Team-1"
        )
        assert ready_file.read_text().startswith('{"proxy_url"')
        assert _grant(emulator, {"client_secret": "chosen"}).json()["expires_in"] == 2


def test_the_emulator_listens_on_loopback_only() -> None:
    done = _start("--host", "0.0.0.0")
    assert done.wait(timeout=20) == 2
    assert done.communicate()[0] == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_emulator_cleanly(number: signal.Signals) -> None:
    process = _start()
    assert process.stdout is not None
    folder = Path(json.loads(process.stdout.readline())["ca_file"]).parent
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert not folder.exists()


def _start(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "azureml_emulator", *flags]
    environment = {**os.environ, "PYTHONPATH": str(SERVER)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
