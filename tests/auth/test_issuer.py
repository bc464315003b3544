"""Access tokens of an identity provider: one runs here, gives out tokens, changes its keys and goes away."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.auth import issuer as issuer_module
from runmirror.auth.levels import Kind, Level
from runmirror.settings import Settings
from tests.auth.conftest import Guarded, guarding
from tests.auth.provider import AUDIENCE, Provider
from tests.auth.world import populated

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"


@pytest.fixture
def trusting(settings: Settings, engine: AsyncEngine, provider: Provider) -> Callable[[], Any]:
    return lambda: guarding(settings, engine, auth="entra", oidc_issuer=provider.url, oidc_audience=AUDIENCE)


async def status(guarded: Guarded, token: str) -> int:
    async with guarded.as_user(token) as client:
        return (await client.get(SEARCH)).status_code


async def test_a_token_of_the_issuer_signs_in_and_its_roles_are_groups(
    trusting: Callable[[], Any], provider: Provider
) -> None:
    async with trusting() as guarded:
        world = await populated(guarded)
        ann = guarded.as_user(provider.token(roles=["vision"], groups=["11-22"]))
        path = f"/api/2.0/mlflow/runs/get?run_id={world.run_id}"
        assert (await ann.get(path)).status_code == 403
        assert (await ann.get("/api/2.0/mlflow/users/current")).json()["user"]["username"] == "0f0e0d"
        made = await world.clients["admin"].post("/api/3.0/mlflow/roles/create", json={"name": "vision"})
        assert made.status_code == 200, made.text
        await guarded.grant("vision", Kind.EXPERIMENT, int(world.experiment_id), Level.READ)
        async with asyncio.timeout(10):
            while (await ann.get(path)).status_code != 200:
                await asyncio.sleep(0.01)
        assert (await guarded.as_user(provider.token(oid="other")).get(path)).status_code == 403
        assert (await ann.get("/api/2.0/mlflow/users/list")).status_code == 403
        admin = guarded.as_user(provider.token(oid="boss", roles=["runmirror.admin"]))
        assert (await admin.get("/api/2.0/mlflow/users/list")).status_code == 200
        # To say so as a group does not make an admin, and tokens of our own go on being good.
        assert (
            await guarded.as_user(provider.token(oid="sly", groups=["runmirror.admin"])).get(
                "/api/2.0/mlflow/users/list"
            )
        ).status_code == 403
        assert await status(guarded, await guarded.user("robot")) == 200


async def test_a_token_that_is_not_good_in_any_one_way_is_refused(
    trusting: Callable[[], Any], provider: Provider
) -> None:
    forged = generate_private_key(public_exponent=65537, key_size=2048)
    now = int(time.time())
    told = {"iss": provider.url, "aud": AUDIENCE, "sub": "x", "exp": now + 600}
    public = json.loads(RSAAlgorithm.to_jwk(provider.keys["first"].public_key()))
    wrong = {
        "audience": provider.token(aud="api://another"),
        "no audience": provider.token(aud=None),
        "issuer": provider.token(iss="https://login.example.org"),
        "ended": provider.token(exp=now - 120),
        "no end": provider.token(exp=None),
        "not yet": provider.token(nbf=now + 600),
        "nobody": provider.token(sub=None, oid=None),
        "forged": provider.token(key=forged),
        "unknown key": provider.token("another", key=forged),
        "no signature": jwt.encode(told, "", algorithm="none", headers={"kid": "first"}),
        "key as a secret": jwt.encode(told, public["n"], algorithm="HS256", headers={"kid": "first"}),
        "a name that is none": provider.token(oid="a:b"),
        "text": "a.b.c",
        "roles": provider.token(roles={"runmirror.admin": True}),
    }
    async with trusting() as guarded:
        assert await status(guarded, provider.token()) == 200
        for why, token in wrong.items():
            assert await status(guarded, token) == 401, why
        good = provider.token()
        assert await status(guarded, good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB")) == 401


async def test_keys_are_fetched_when_they_change_and_kept_when_the_provider_is_away(
    trusting: Callable[[], Any], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trusting() as guarded:
        provider.is_up = False
        assert await status(guarded, provider.token()) == 429, "without any keys nobody can tell"
        provider.is_up = True
        monkeypatch.setattr(issuer_module, "ASK_AGAIN_S", 0.0)
        assert await status(guarded, provider.token()) == 200
        monkeypatch.setattr(issuer_module, "ASK_AGAIN_S", 30.0)
        asked = len(provider.asked)
        for n in range(5):
            assert await status(guarded, provider.token(oid=f"user-{n}")) == 200
            assert await status(guarded, provider.token(f"made-up-{n}", key=provider.keys["first"])) == 401
        assert len(provider.asked) == asked, "who makes up keys does not make us ask for them"
        provider.new_key("second")
        monkeypatch.setattr(issuer_module, "ASK_AGAIN_S", 0.0)
        assert await status(guarded, provider.token("second")) == 200
        provider.is_up = False
        monkeypatch.setattr(issuer_module, "KEYS_LIFE_S", 0.0)
        assert await status(guarded, provider.token("second", oid="late")) == 200, "the keys that are known stay good"
        provider.is_up, provider.calls_itself = True, "https://somebody.else"
        provider.keys = {}
        assert await status(guarded, provider.token("third", key=generate_private_key(65537, 2048))) == 401


def test_an_issuer_is_told_whole_and_with_tls() -> None:
    with pytest.raises(ValueError, match="needs RUNMIRROR_OIDC_ISSUER"):
        Settings(auth="entra")
    for url in ("http://login.example.org", "http://127.0.0.1.example.org/", "ftp://x", "login.example.org"):
        with pytest.raises(ValueError, match="not an https address"):
            Settings(auth="entra", oidc_issuer=url, oidc_audience=AUDIENCE)
    for url in ("http://login.example.org/keys", "http://127.0.0.1.example.org/", "file:///etc/passwd", ""):
        with pytest.raises(ValueError, match="not an https address"):
            issuer_module.check_address(url)
