"""Who a request is from: tokens as clients of MLflow send them, their end, and what the server keeps in mind."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.__main__ import main
from runmirror.app import create_app
from runmirror.auth import service, token_queries
from runmirror.settings import Settings
from tests.auth.conftest import Guarded, guarding

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 10
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_token_is_taken_as_bearer_and_as_the_password_of_its_user(guarded: Guarded) -> None:
    token = await guarded.user("ann")
    async with guarded.as_nobody() as client:
        for good in (
            f"Bearer {token}",
            f"bearer {token}",
            basic("ann", token),
            basic("token", token),
            basic("", token),
        ):
            answer = await client.get(SEARCH, headers={"Authorization": good})
            assert answer.status_code == 200, (good, answer.text)


async def test_whoever_is_not_signed_in_gets_401_in_mlflows_shape_and_a_challenge(guarded: Guarded) -> None:
    token = await guarded.user("ann")
    await guarded.user("bob")
    wrong = [
        None, "", "Bearer", f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer rmt_" + "A" * 43, f"Token {token}",
        basic("bob", token), basic("ann", "password1234"), basic("ann", ""), basic("nobody\0", "x"), "Basic ###",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Bearer " + "x" * 20_000, f"Bearer {token}\u00e9",
    ]  # fmt: skip
    async with guarded.as_nobody() as client:
        for value in wrong:
            headers = {} if value is None else {"Authorization": value.encode("latin-1")}
            answer = await client.get(SEARCH, headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED"), value
            assert answer.headers["WWW-Authenticate"].startswith('Basic realm="runmirror"')
            assert token not in answer.text
        twice = [("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")]
        assert (await client.get(SEARCH, headers=twice)).status_code == 401
        # Also what does not exist, so that nobody learns what does.
        for path in ("/api/2.0/mlflow/nonsense", "/api/runmirror/v1/openapi.json", "/mirror", "/metrics", "/graphql"):
            assert (await client.get(path)).status_code == 401, path
        for path in ("/health", "/version", "/livez", "/readyz", "/api/3.0/mlflow/server-info"):
            assert (await client.get(path)).status_code == 200, path
            assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 200, path


async def test_a_page_of_another_site_cannot_use_the_password_that_a_browser_remembers(guarded: Guarded) -> None:
    token = await guarded.user("ann")
    body = {"name": "made-elsewhere"}
    async with guarded.as_nobody() as client:
        headers = {"Authorization": basic("ann", token), "Sec-Fetch-Site": "cross-site"}
        refused = await client.post("/api/2.0/mlflow/experiments/create", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
        headers["Sec-Fetch-Site"] = "same-origin"
        assert (await client.post("/api/2.0/mlflow/experiments/create", json=body, headers=headers)).status_code == 200


async def test_a_revoked_token_is_useless_at_once_on_every_server(
    guarded: Guarded, settings: Settings, engine: AsyncEngine
) -> None:
    async with guarding(settings, engine) as other:
        ann = await guarded.client("ann")
        made = (await ann.post("/api/runmirror/v1/tokens", json={"name": "laptop"})).json()
        servers = [guarded.as_user(made["token"]), other.as_user(made["token"])]
        for client in servers:
            assert (await client.get(SEARCH)).status_code == 200
        began = time.monotonic()
        assert (await ann.delete(f"/api/runmirror/v1/tokens/{made['token_id']}")).status_code == 200
        for client in servers:

            async def is_refused(client: httpx.AsyncClient = client) -> bool:
                return (await client.get(SEARCH)).status_code == 401

            await until(is_refused)
        assert time.monotonic() - began < 5, "which is far less than what is kept without news lives"


async def test_a_token_is_asked_for_once_and_then_remembered(guarded: Guarded) -> None:
    ann = await guarded.client("ann")

    asked: list[str] = []

    @event.listens_for(guarded.app.state.engine.sync_engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    async def is_remembered() -> bool:
        asked.clear()  # what making the user has told may come late
        assert (await ann.get(SEARCH)).status_code == 200
        return not any("FROM tokens" in statement for statement in asked)

    await until(is_remembered)
    asked.clear()
    for _ in range(5):
        assert (await ann.get(SEARCH)).status_code == 200
    assert len([statement for statement in asked if "FROM experiments" in statement]) == 5
    assert [statement for statement in asked if "FROM tokens" in statement] == []


async def test_while_nobody_listens_for_changes_nothing_is_remembered(guarded: Guarded) -> None:
    ann = await guarded.client("ann")
    identities = guarded.app.state.identities

    async def is_remembered() -> bool:
        assert (await ann.get(SEARCH)).status_code == 200
        return len(identities._kept) == 1

    await until(is_remembered)
    async with guarded.engine.connect() as connection:
        await connection.execute(
            text("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = 'runmirror listen' AND datname = current_database()
            """)
        )

    async def is_lost() -> bool:
        return not identities.is_fresh

    await until(is_lost)
    assert (await ann.get(SEARCH)).status_code == 200
    assert identities.is_fresh or identities._kept == {}
    await until(is_remembered)


async def test_a_token_ends_when_it_was_said_to(guarded: Guarded) -> None:
    async with guarded.engine.begin() as connection:
        user = await token_queries.make_user(connection, "ann", is_admin=False)
        token, _ = await service.create_token(connection, user, lifetime=timedelta(seconds=1))
    async with guarded.as_user(token) as ann:
        assert (await ann.get(SEARCH)).status_code == 200

        async def has_ended() -> bool:
            return (await ann.get(SEARCH)).status_code == 401

        await until(has_ended)


async def test_tokens_are_kept_as_hashes_and_listed_without_themselves(settings: Settings, engine: AsyncEngine) -> None:
    async with guarding(settings, engine) as guarded:
        ann, bob = await guarded.client("ann"), await guarded.client("bob")
        admin = await guarded.client("root", is_admin=True)
        made = (await ann.post("/api/runmirror/v1/tokens", json={"name": "ci", "expires_in_days": 30})).json()
        assert made["token"].startswith(made["prefix"])
        assert len(made["prefix"]) == 12
        listed = (await ann.get("/api/runmirror/v1/tokens")).json()["tokens"]
        assert [(one["user"], one["name"]) for one in listed] == [("ann", "ci"), ("ann", "")]
        assert made["token"] not in json.dumps(listed)
        assert len((await admin.get("/api/runmirror/v1/tokens")).json()["tokens"]) == 4
        assert len((await admin.get("/api/runmirror/v1/tokens?user=bob")).json()["tokens"]) == 1
        # Of others neither the tokens nor whether there are any.
        assert (await bob.get("/api/runmirror/v1/tokens?user=ann")).json()["tokens"] == []
        for token_id in (made["token_id"], "999", "x", "9" * 30):
            assert (await bob.delete(f"/api/runmirror/v1/tokens/{token_id}")).status_code == 404
        assert (await bob.post("/api/runmirror/v1/tokens", json={"user": "ann"})).status_code == 403
        assert (await admin.post("/api/runmirror/v1/tokens", json={"user": "robot"})).json()["user"] == "robot"
        for refused in ({"user": "a:b"}, {"user": " "}, {"user": "x", "expires_in_days": 0}, {"user": "x" * 300}):
            assert (await admin.post("/api/runmirror/v1/tokens", json=refused)).status_code == 400, refused
        await guarded.as_user(made["token"]).get(SEARCH)
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT t.* FROM tokens t WHERE name = 'ci'"))).mappings().all()
        assert made["token"] not in repr(rows)
        assert rows[0]["last_used_at"] is not None


def test_the_command_line_makes_lists_and_revokes_tokens(database_url: str) -> None:
    def run(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(main, ["token", *arguments, "--backend-store-uri", database_url])
        assert (result.exit_code != 0) == fails, result.output
        return result.output.strip()

    token = run("create", "ann", "--admin", "--days", "30", "--name", "first")
    assert token.startswith("rmt_")
    other = json.loads(run("create", "bob", "--json"))
    listed = run("list")
    assert token[:12] in listed
    assert token not in listed
    assert "first" in listed
    assert [one["user"] for one in json.loads(run("list", "--user", "bob", "--json"))] == ["bob"]
    assert run("revoke", token[:12]) == "revoked token 1"
    assert run("revoke", other["token_id"]) == "revoked token 2"
    assert "no such token" in run("revoke", "rmt_nothing", fails=True)
    assert "Invalid user" in run("create", "a:b", fails=True)
    assert run("list").count("revoked ") == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "::ffff:0.0.0.0", "192.0.2.1", "example.org", ""])
def test_without_authentication_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(ValueError, match="refusing to listen"):
        Settings(host=host)
    assert Settings(host=host, auth="token").host == host


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("192.0.2.1", 403),
        ("::ffff:192.0.2.1", 403),
        ("2001:db8::1", 403),
    ],
)
async def test_without_authentication_only_loopback_is_answered_whoever_started_the_server(
    settings: Settings, address: str, status: int
) -> None:
    """Another program than `runmirror serve` may run the application, and listen anywhere."""
    assert settings.database_url is not None
    for allowed in (False, True):
        app = create_app(settings.model_copy(update={"insecure_no_auth": allowed}), settings.database_url)
        transport = httpx.ASGITransport(app=app)
        host = f"[{address}]" if ":" in address else address
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            answer = await client.get("/version")
        assert answer.status_code == (200 if allowed else status)
        assert allowed or status == 200 or "RUNMIRROR_INSECURE_NO_AUTH" in answer.json()["message"]


async def test_a_user_who_asks_too_often_is_told_when_to_come_again(settings: Settings, engine: AsyncEngine) -> None:
    async with guarding(settings, engine, rate_limit_per_user=1.0) as guarded:
        ann, again, bob = await guarded.client("ann"), await guarded.client("ann"), await guarded.client("bob")
        body = {"run_id": "0" * 32, "key": "k", "value": 1.0, "timestamp": 1}
        statuses = [(await ann.post("/api/2.0/mlflow/runs/log-metric", json=body)).status_code for _ in range(7)]
        assert statuses == [404] * 5 + [429] * 2
        answer = await again.get(SEARCH)  # with another token, which is theirs too
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
        assert "RUNMIRROR_RATE_LIMIT_PER_USER" in answer.json()["message"]
        assert (await bob.get(SEARCH)).status_code == 200
        assert (await ann.get("/health")).status_code == 429  # who signs in where nobody has to is counted too
        async with guarded.as_nobody() as probe:
            assert (await probe.get("/health")).status_code == 200
