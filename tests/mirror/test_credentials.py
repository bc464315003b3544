"""Tokens: trusted, renewed in time, and replaced when refused."""

import pytest

from runmirror.mirror.credentials import Tokens
from runmirror.mirror.target import TargetUnauthorized, TargetUnavailable
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess


def token_requests(emulator: EmulatorProcess) -> int:
    return sum(r["path"].endswith("/oauth2/v2.0/token") for r in emulator.requests())


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "RUNMIRROR_CA_BUNDLE"])
async def test_any_of_the_variables_makes_a_private_authority_trusted(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for other in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, emulator.ca_file)
    tokens = Tokens(Settings())
    assert await tokens.get()
    assert await tokens.tenant_id() == emulator.tenant_id


async def test_an_authority_nobody_vouches_for_is_not_trusted(
    emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises((TargetUnavailable, TargetUnauthorized)):
        await Tokens(Settings()).get()


async def test_a_token_is_kept_until_it_nears_its_end(emulator: EmulatorProcess) -> None:
    tokens = Tokens(Settings())
    assert {await tokens.get() for _ in range(5)} == {await tokens.get()}
    assert token_requests(emulator) == 1


async def test_a_refused_token_is_replaced_once_for_all_who_hold_it(emulator: EmulatorProcess) -> None:
    tokens = Tokens(Settings())
    refused = await tokens.get()
    first = await tokens.replace(refused)
    assert first != refused
    assert await tokens.replace(refused) == first
    assert token_requests(emulator) == 2


async def test_a_failed_renewal_does_not_matter_while_the_old_token_lives(emulator: EmulatorProcess) -> None:
    emulator.change_settings(token_lifetime=3600)
    tokens = Tokens(Settings())
    old = await tokens.get()
    assert tokens._token is not None
    tokens._token = type(tokens._token)(old, tokens._token.expires_at, 0.0)  # due for renewal
    emulator.add_fault("status", {"path": "/token"}, status=400, times=-1, body={"error": "invalid_client"})
    assert await tokens.get() == old
    asked = token_requests(emulator)
    assert await tokens.get() == old
    assert token_requests(emulator) == asked, "not at every request"


async def test_a_managed_identity_works_too(emulator: EmulatorProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("IDENTITY_ENDPOINT", str(emulator.ready["identity_endpoint"]))
    monkeypatch.setenv("IDENTITY_HEADER", str(emulator.ready["identity_header"]))
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    assert await Tokens(Settings()).get()
