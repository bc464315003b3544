"""Deliveries: written with the event, sent until they are taken, by whoever is there, and lost by nobody."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.settings import Settings
from runmirror.webhooks import deliverer, queue
from runmirror.webhooks.deliverer import delivering
from runmirror.webhooks.retry import Again, Done, decide
from runmirror.webhooks.secrets import kept_key
from runmirror.webhooks.sender import Answered, NotAnswered, Sender
from tests.server import free_port, serving
from tests.webhooks.receiver import Receiver, receiving

API = "/api/2.0/mlflow"
EVENT = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
DEADLINE_S = 20.0


async def create(client: httpx.AsyncClient, url: str, **fields: Any) -> str:
    answer = await client.post(f"{API}/webhooks", json={"name": "a", "url": url, "events": [EVENT], **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["webhook"]["webhook_id"])


async def happen(client: httpx.AsyncClient, *names: str) -> None:
    for name in names:
        answer = await client.post(f"{API}/registered-models/create", json={"name": name})
        assert answer.status_code == 200, answer.text


async def deliveries(engine: AsyncEngine) -> list[tuple[str, int, str | None]]:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT state, attempts, outcome FROM webhook_deliveries ORDER BY due_at"))
        return [(row.state, row.attempts, row.outcome) for row in rows]


async def eventually(engine: AsyncEngine, wanted: Callable[[list[tuple[str, int, str | None]]], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not wanted(await deliveries(engine)):
            await asyncio.sleep(0.02)


async def execute(engine: AsyncEngine, statement: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(statement))


def settled(states: list[tuple[str, int, str | None]]) -> bool:
    return bool(states) and all(state != "due" for state, *_ in states)


async def wait_for(receiver: Receiver, path: str, count: int = 1) -> list[Any]:
    """Beside the loop: the app under test lives in it."""
    return await asyncio.to_thread(receiver.wait_for, path, count)


async def test_a_delivery_tried_again_has_the_same_id_and_body(
    client: httpx.AsyncClient, engine: AsyncEngine, receiver: Receiver
) -> None:
    receiver.answers["/x"] = [(503, {}, b""), (429, {"Retry-After": "0"}, b""), (200, {}, b"")]
    await create(client, f"{receiver.url}/x", secret="s")
    await happen(client, "m")
    for number in (1, 2):
        await eventually(engine, lambda states: states[0][2] is not None and states[0][1] == number)  # noqa: B023
        await execute(engine, "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'due'")
        await execute(engine, f"NOTIFY {queue.CHANNEL}")
    await eventually(engine, settled)
    assert await deliveries(engine) == [("delivered", 3, "HTTP 200")]
    sent = receiver.at("/x")
    assert len({one.delivery_id for one in sent}) == 1
    assert len({one.content for one in sent}) == 1
    assert len(sent) == 3


@pytest.mark.parametrize("status", [302, 400, 404, 410])
async def test_a_receiver_that_refuses_is_not_asked_again(
    client: httpx.AsyncClient, engine: AsyncEngine, receiver: Receiver, status: int
) -> None:
    receiver.answers["/x"] = [(status, {}, b"")]
    await create(client, f"{receiver.url}/x")
    await happen(client, "m")
    await eventually(engine, settled)
    assert await deliveries(engine) == [("failed", 1, f"HTTP {status}")]


def test_the_waits_grow_and_end() -> None:
    def wait_of(result: Answered | NotAnswered, attempts: int) -> float | None:
        decision = decide(result, attempts=attempts, max_retries=8, jitter=0)
        return decision.wait.total_seconds() if isinstance(decision, Again) else None

    away = NotAnswered("ConnectError")
    assert [wait_of(away, attempts) for attempts in range(1, 10)] == [1, 4, 16, 64, 256, 1024, 3600, 3600, None]
    assert wait_of(Answered(503, "", 90.0), 1) == 90
    assert wait_of(Answered(500, ""), 2) == 4
    assert isinstance(decide(Answered(204, ""), attempts=99, max_retries=0, jitter=0), Done)
    assert wait_of(NotAnswered("forbidden", for_good=True), 1) is None


async def test_an_event_that_is_rolled_back_is_told_to_nobody(
    client: httpx.AsyncClient, engine: AsyncEngine, receiver: Receiver
) -> None:
    await create(client, f"{receiver.url}/x")
    async with engine.connect() as connection, connection.begin() as transaction:
        await queue.record(connection, "registered_model.created", {"name": "never"})
        await transaction.rollback()
    answer = await client.post(f"{API}/registered-models/create", json={"name": "a", "tags": [{"key": "\x01\x02"}]})
    assert answer.status_code == 400
    await happen(client, "m")
    await eventually(engine, settled)
    assert [one.body["data"]["name"] for one in receiver.received] == ["m"]


async def test_a_webhook_is_told_only_what_it_asked_for_while_it_is_active(
    client: httpx.AsyncClient, engine: AsyncEngine, receiver: Receiver
) -> None:
    await create(client, f"{receiver.url}/active")
    await create(client, f"{receiver.url}/other", events=[{"entity": "PROMPT", "action": "CREATED"}])
    disabled = await create(client, f"{receiver.url}/disabled", status="DISABLED")
    gone = await create(client, f"{receiver.url}/gone")
    await client.delete(f"{API}/webhooks/{gone}")
    await happen(client, "m")
    await client.patch(f"{API}/webhooks/{disabled}", json={"status": "ACTIVE"})
    await happen(client, "n")
    await eventually(engine, settled)
    assert Counter(one.path for one in receiver.received) == {"/active": 2, "/disabled": 1}


async def test_what_waits_is_dropped_when_the_webhook_is_disabled_or_deleted(
    client: httpx.AsyncClient, engine: AsyncEngine
) -> None:
    one, two = [await create(client, f"http://127.0.0.1:{free_port()}/") for _ in range(2)]
    await happen(client, "m")
    await eventually(engine, lambda states: all(outcome for *_, outcome in states))
    await client.patch(f"{API}/webhooks/{one}", json={"status": "DISABLED"})
    assert len(await deliveries(engine)) == 1
    await client.delete(f"{API}/webhooks/{two}")
    assert await deliveries(engine) == []


async def test_a_receiver_that_hangs_holds_up_nobody_and_the_end_gives_back(
    settings: Settings,
    client: httpx.AsyncClient,
    engine: AsyncEngine,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliverer, "_GRACE_S", 0.2)
    hanging = await create(client, f"{receiver.url}/hang")
    await create(client, f"{receiver.url}/quick")
    await happen(client, *(f"m{number}" for number in range(5)))
    await wait_for(receiver, "/hang")
    assert [one.body["data"]["name"] for one in await wait_for(receiver, "/quick", 5)] == [f"m{n}" for n in range(5)]
    await client.patch(f"{API}/webhooks/{hanging}", json={"url": f"{receiver.url}/hang/other"})

    # A second process has its own deliverer; it ends while its request hangs.
    sender = Sender(settings)
    async with delivering(settings, engine, sender):
        await wait_for(receiver, "/hang/other")
    await sender.close()
    leased = "SELECT count(*) FROM webhook_deliveries WHERE state = 'due' AND lease_token IS NOT NULL"
    async with engine.connect() as connection:
        assert await connection.scalar(text(leased)) == 1  # the app's own
    ids = Counter(one.delivery_id for one in receiver.received)
    receiver.hanging.set()
    await eventually(engine, settled)
    assert {one.delivery_id for one in receiver.received} >= set(ids)


async def test_tests_of_webhooks_that_hang_do_not_pile_up(
    settings: Settings, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    webhook_id = await create(client, f"{receiver.url}/hang")
    test = f"{API}/webhooks/{webhook_id}/test"
    hanging = [asyncio.create_task(client.post(test)) for _ in range(settings.webhook_concurrency)]
    await wait_for(receiver, "/hang", len(hanging))
    assert (await client.post(test)).status_code == 429
    receiver.hanging.set()
    assert {answer.json()["result"]["success"] for answer in await asyncio.gather(*hanging)} == {True}


async def test_processes_share_the_work(settings: Settings, engine: AsyncEngine, receiver: Receiver) -> None:
    async with engine.begin() as connection:
        for number in range(6):
            await connection.execute(
                text(
                    "INSERT INTO webhooks (name, url, events, status, creation_time_ms, last_updated_time_ms) "
                    "VALUES ('a', :url, '{registered_model.created}', 'ACTIVE', 0, 0)"
                ),
                {"url": f"{receiver.url}/{number}"},
            )
    async with AsyncExitStack() as stack:
        for _ in range(3):
            sender = Sender(settings)
            stack.push_async_callback(sender.close)
            await stack.enter_async_context(delivering(settings, engine, sender))
        for number in range(10):
            async with engine.begin() as connection:
                await queue.record(connection, "registered_model.created", {"name": str(number)})
        await eventually(engine, lambda states: len(states) == 60 and settled(states))
    assert max(Counter(one.delivery_id for one in receiver.received).values()) == 1
    assert Counter((one.path, one.body["data"]["name"]) for one in receiver.received) == {
        (f"/{path}", str(name)): 1 for path in range(6) for name in range(10)
    }


async def test_a_lease_that_has_passed_on_changes_nothing(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    await create(client, url)
    async with engine.connect() as connection, connection.begin():
        await queue.record(connection, "registered_model.created", {"name": "m"})
        lease = {"most": 5, "busy": [], "ttl": timedelta(0)}
        [first] = await queue.claim(connection, **lease)
        [second] = await queue.claim(connection, **lease)
        assert (first.delivery_id, second.attempts) == (second.delivery_id, 2)
        await queue.finish(connection, first, delivered=True, outcome="late")
        await queue.postpone(connection, first, wait=timedelta(1), outcome="late")
        [third] = await queue.claim(connection, **lease)
        await queue.finish(connection, third, delivered=True, outcome="HTTP 200")
        assert await queue.claim(connection, **lease) == []
        assert await queue.seconds_to_next(connection, busy=[]) is None
        await queue.forget_finished(connection, age=timedelta(days=7))
        left = text("SELECT outcome FROM webhook_deliveries")
        assert await connection.scalar(left) == "HTTP 200"
        await connection.execute(text("UPDATE webhook_deliveries SET finished_at = now() - interval '8 days'"))
        await queue.forget_finished(connection, age=timedelta(days=7))
        assert await connection.scalar(left) is None


async def test_a_secret_is_stored_encrypted_and_never_told(
    client: httpx.AsyncClient, engine: AsyncEngine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    webhook_id = await create(client, f"http://127.0.0.1:{free_port()}/", secret="open sesame")
    await happen(client, "m")
    await eventually(engine, lambda states: states[0][2] is not None)
    told = [(await client.get(f"{API}/webhooks{path}")).text for path in ("", f"/{webhook_id}")]
    told += [(await client.post(f"{API}/webhooks/{webhook_id}/test", json={})).text, caplog.text]
    for wrong in ({"secret": ["open sesame"]}, {"secret": {"open sesame": 1}}, {"secret": "open sesame", "name": "-"}):
        told.append((await client.patch(f"{API}/webhooks/{webhook_id}", json=wrong)).text)
    assert not any("sesame" in one for one in told)
    async with engine.connect() as connection:
        stored = await connection.scalar(text("SELECT secret FROM webhooks"))
    assert settings.webhook_secret_key is not None
    key = settings.webhook_secret_key.get_secret_value()
    assert Fernet(key).decrypt(stored) == b"open sesame"


async def test_with_another_key_nothing_is_sent_unsigned(
    client: httpx.AsyncClient, engine: AsyncEngine, receiver: Receiver
) -> None:
    webhook_id = await create(client, f"{receiver.url}/x", secret="s")
    other = Fernet(Fernet.generate_key()).encrypt(b"s").decode()
    await execute(engine, f"UPDATE webhooks SET secret = '{other}'")
    await happen(client, "m")
    await eventually(engine, settled)
    [(state, _, outcome)] = await deliveries(engine)
    assert state == "failed"
    assert "RUNMIRROR_WEBHOOK_SECRET_KEY" in str(outcome)
    shown = await client.get(f"{API}/webhooks/{webhook_id}")
    assert shown.status_code == 200
    assert receiver.received == []


def test_the_key_of_an_embedded_database_is_kept(tmp_path: Path) -> None:
    key = kept_key(tmp_path)
    assert kept_key(tmp_path) == key
    assert (tmp_path / "webhook-secret-key").stat().st_mode & 0o777 == 0o600
    assert Settings(webhook_secret_key=key).webhook_secret_key is not None
    with pytest.raises(ValueError, match="not a Fernet key"):
        Settings(webhook_secret_key="short")


def test_kill_9_loses_no_delivery(tmp_path: Path, database_url: str) -> None:
    """Killed while one request hangs and another receiver is away: the next start sends both, under their old ids."""
    allowed = {"RUNMIRROR_WEBHOOK_ALLOW_PRIVATE": "true", "RUNMIRROR_WEBHOOK_ALLOWED_SCHEMES": "http"}
    arguments = ("--no-mirror", "--backend-store-uri", database_url)
    port = free_port()
    with receiving() as receiver:
        with (
            serving(tmp_path, *arguments, **allowed) as server,
            httpx.Client(base_url=server.url, trust_env=False) as client,
        ):
            for url in (f"{receiver.url}/hang", f"http://127.0.0.1:{port}/late"):
                client.post(f"{API}/webhooks", json={"name": "a", "url": url, "events": [EVENT]}).raise_for_status()
            client.post(f"{API}/registered-models/create", json={"name": "m"}).raise_for_status()
            [hung] = receiver.wait_for("/hang")
            server.kill()
        asyncio.run(let_leases_expire(database_url))
        receiver.hanging.set()
        with receiving(port) as late, serving(tmp_path, *arguments, **allowed):
            again = receiver.wait_for("/hang", 2)[-1]
            assert (again.delivery_id, again.content) == (hung.delivery_id, hung.content)
            [other] = late.wait_for("/late")
            assert other.body["data"] == json.loads(hung.content)["data"]


async def let_leases_expire(database_url: str) -> None:
    """What time would do."""
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    await execute(engine, "UPDATE webhook_deliveries SET due_at = now() WHERE state = 'due'")
    await engine.dispose()


def test_a_key_is_the_same_for_all_who_ask_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: kept_key(tmp_path), range(16)))
    assert len(keys) == 1
    assert Settings(webhook_secret_key=keys.pop()).webhook_secret_key is not None
    assert [file.name for file in tmp_path.iterdir()] == ["webhook-secret-key"]
