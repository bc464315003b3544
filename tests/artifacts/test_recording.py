"""Uploads and deletions below a run are changes of the run, and its rows agree with the store."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text

from runmirror.artifacts.store import Store
from tests.artifacts.conftest import Run, make_run
from tests.artifacts.recorded import Row, md5, rows, seq
from tests.artifacts.test_routes import SERVICE, put


async def stored(store: Store, path: str) -> bytes:
    opened = await store.read(path)
    return b"".join([chunk async for chunk in opened.stream])


async def test_an_upload_is_one_change_of_its_run(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    async with app.state.engine.begin() as connection:
        await connection.execute(text("UPDATE mirrors SET state = 'current', behind_since = NULL"))
    before = await seq(app, run)
    await put(client, f"{run.root}/d/f", b"one")
    assert await rows(app, run) == [Row("d/f", 3, md5(b"one"), False, before + 1)]
    assert await seq(app, run) == before + 1
    async with app.state.engine.connect() as connection:
        assert await connection.scalar(text("SELECT state FROM mirrors WHERE behind_since IS NOT NULL")) == "due"
    await put(client, f"{run.root}/d/f", b"again")
    assert await rows(app, run) == [Row("d/f", 5, md5(b"again"), False, before + 2)]


async def test_a_deletion_is_one_change_of_its_run(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    for path in ("d/a", "d/b", "da", "e"):
        await put(client, f"{run.root}/{path}", b"1")
    before = await seq(app, run)
    assert (await client.delete(f"{SERVICE}/{run.root}/d")).status_code == 200
    assert [(row.path, row.seq) for row in await rows(app, run) if row.deleted] == [
        ("d/a", before + 1),
        ("d/b", before + 1),
    ]
    assert await seq(app, run) == before + 1
    await put(client, f"{run.root}/d/a", b"back")
    assert (await rows(app, run))[0] == Row("d/a", 4, md5(b"back"), False, before + 2)
    assert (await client.delete(f"{SERVICE}/{run.root}")).status_code == 200
    assert all(row.deleted for row in await rows(app, run))
    assert await seq(app, run) == before + 3


async def test_deleting_nothing_is_no_change(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    await put(client, f"{run.root}/f", b"1")
    before = await seq(app, run)
    for path in ("nothing", "f/below"):
        assert (await client.delete(f"{SERVICE}/{run.root}/{path}")).json() == {}
    assert await seq(app, run) == before
    assert not (await rows(app, run))[0].deleted


async def test_deleting_the_folder_of_a_run_is_a_change_of_it(
    client: httpx.AsyncClient, app: FastAPI, run: Run
) -> None:
    await put(client, f"{run.root}/f", b"1")
    assert (await client.delete(f"{SERVICE}/0/{run.run_id}")).status_code == 200
    assert [row.deleted for row in await rows(app, run)] == [True]


async def test_a_deleted_run_still_takes_files(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    await client.post("/api/2.0/mlflow/runs/delete", json={"run_id": run.run_id})
    await put(client, f"{run.root}/f", b"1")
    assert [row.path for row in await rows(app, run)] == ["f"]


async def test_a_custom_location_belongs_to_its_runs(client: httpx.AsyncClient, app: FastAPI) -> None:
    body = {"name": "elsewhere", "artifact_location": "mlflow-artifacts:/team a/project"}
    experiment = (await client.post("/api/2.0/mlflow/experiments/create", json=body)).json()["experiment_id"]
    run = await make_run(client, experiment)
    assert run.root.startswith("team a/project/")
    await put(client, f"{run.root}/f", b"1")
    assert [row.path for row in await rows(app, run)] == ["f"]
    assert (await client.get(f"/get-artifact?run_id={run.run_id}&path=f")).content == b"1"
    for path in ("team a", "team a/project", "team a/project/models"):
        assert (await client.delete(f"{SERVICE}/{path}")).status_code == 400


async def test_what_lies_below_no_run_is_stored_and_not_recorded(
    client: httpx.AsyncClient, app: FastAPI, run: Run
) -> None:
    for path in ("loose/f", f"0/{'f' * 32}/artifacts/f", f"1/{run.run_id}/artifacts/f", f"0/{run.run_id}/other/f"):
        await put(client, path, b"1")
        assert (await client.get(f"{SERVICE}/{path}")).content == b"1"
        assert (await client.delete(f"{SERVICE}/{path}")).status_code == 200
    assert await rows(app, run) == []
    assert await seq(app, run) == 1


async def test_files_of_a_logged_model_are_changes_of_its_source_run(
    client: httpx.AsyncClient, app: FastAPI, run: Run
) -> None:
    made, orphan = f"m-{'a' * 32}", f"m-{'b' * 32}"
    async with app.state.engine.begin() as connection:
        for model_id, source in ((made, run.run_id), (orphan, None)):
            await connection.execute(
                text("""
                    INSERT INTO logged_models (model_id, experiment_id, name, artifact_uri, creation_timestamp_ms,
                        last_updated_timestamp_ms, status, source_run_id)
                    VALUES (:model_id, 0, 'm', :uri, 0, 0, 1, :run)
                """),
                {"model_id": model_id, "uri": f"mlflow-artifacts:/0/models/{model_id}/artifacts", "run": source},
            )
    await put(client, f"0/models/{made}/artifacts/MLmodel", b"flavors:")
    await put(client, f"0/models/{orphan}/artifacts/MLmodel", b"flavors:")
    assert await rows(app, run) == [Row("MLmodel", 8, md5(b"flavors:"), False, 2, made)]
    assert (await client.put(f"{SERVICE}/0/models/{orphan}", content=b"1")).status_code == 400
    for model_id in (made, orphan):
        assert (await client.delete(f"{SERVICE}/0/models/{model_id}/artifacts")).status_code == 200
    assert await rows(app, run) == [Row("MLmodel", 8, md5(b"flavors:"), True, 3, made)]


class PausingStore:
    """The real store, but the first call of `operation` waits for `go` after the store has changed."""

    def __init__(self, store: Store, operation: str) -> None:
        self.store = store
        self.operation = operation
        self.changed = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name != self.operation or self.changed.is_set():
            return real

        async def paused(*arguments: Any) -> Any:
            result = await real(*arguments)
            self.changed.set()
            await self.go.wait()
            return result

        return paused


async def overtaken(
    app: FastAPI, operation: str, first: Awaitable[httpx.Response], second: Callable[[], Awaitable[httpx.Response]]
) -> None:
    """Run `second` from start to end between what `first` does to the store and what it records."""
    pausing = app.state.artifacts = PausingStore(app.state.artifacts, operation)
    task = asyncio.ensure_future(first)
    await pausing.changed.wait()
    assert (await second()).status_code == 200
    pausing.go.set()
    assert (await task).status_code == 200
    app.state.artifacts = pausing.store


@pytest.mark.parametrize("there_before", [False, True], ids=["new", "overwritten"])
async def test_an_upload_overtaken_by_another_records_what_is_stored(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run, there_before: bool
) -> None:
    address = f"{SERVICE}/{run.root}/f"
    if there_before:
        await put(client, f"{run.root}/f", b"before")
    before = await seq(app, run)
    await overtaken(app, "write", client.put(address, content=b"first"), lambda: client.put(address, content=b"second"))
    assert await stored(store, f"{run.root}/f") == b"second"
    assert await rows(app, run) == [Row("f", 6, md5(b"second"), False, before + 2)]
    assert await seq(app, run) == before + 2


@pytest.mark.parametrize("history", ["new", "there", "deleted"])
async def test_an_upload_overtaken_by_a_deletion_records_what_is_stored(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run, history: str
) -> None:
    address = f"{SERVICE}/{run.root}/d/f"
    if history != "new":
        await put(client, f"{run.root}/d/f", b"before")
    if history == "deleted":
        await client.delete(address)
    await overtaken(app, "write", client.put(address, content=b"1"), lambda: client.delete(f"{SERVICE}/{run.root}/d"))
    assert [(row.path, row.deleted) for row in await rows(app, run)] == [("d/f", True)]
    assert await store.digest(f"{run.root}/d/f") is None


@pytest.mark.parametrize("there_before", [False, True], ids=["new", "overwritten"])
async def test_a_deletion_overtaken_by_an_upload_records_what_is_stored(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run, there_before: bool
) -> None:
    await put(client, f"{run.root}/d/other", b"1")
    if there_before:
        await put(client, f"{run.root}/d/f", b"before")
    deletion = client.delete(f"{SERVICE}/{run.root}/d")
    await overtaken(app, "delete", deletion, lambda: client.put(f"{SERVICE}/{run.root}/d/f", content=b"after"))
    assert [(row.path, row.md5, row.deleted) for row in await rows(app, run)] == [
        ("d/f", md5(b"after"), False),
        ("d/other", md5(b"1"), True),
    ]
    assert await stored(store, f"{run.root}/d/f") == b"after"


async def test_many_uploads_of_one_file_at_once_leave_row_and_bytes_agreeing(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run
) -> None:
    many = 8
    together = asyncio.Barrier(many)

    async def body(number: int) -> AsyncIterator[bytes]:
        yield b"%d" % number * 1000
        await together.wait()
        yield b"end"

    answers = await asyncio.gather(
        *(client.put(f"{SERVICE}/{run.root}/f", content=body(number)) for number in range(many))
    )
    assert [answer.status_code for answer in answers] == [200] * many
    data = await stored(store, f"{run.root}/f")
    assert await rows(app, run) == [Row("f", len(data), md5(data), False, 1 + many)]
    assert await seq(app, run) == 1 + many


async def test_of_two_big_uploads_at_once_one_wins_and_the_other_may_have_to_come_again(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run
) -> None:
    together = asyncio.Barrier(2)

    async def body(letter: bytes) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield letter * 1024**2
        await together.wait()

    answers = await asyncio.gather(
        *(client.put(f"{SERVICE}/{run.root}/f", content=body(letter)) for letter in (b"a", b"b"))
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses in ([200, 200], [200, 429])
    data = await stored(store, f"{run.root}/f")
    assert set(data) in ({ord("a")}, {ord("b")})
    assert await rows(app, run) == [Row("f", 20 * 1024**2, md5(data), False, 1 + statuses.count(200))]


async def test_an_upload_the_client_breaks_off_is_as_if_it_never_was(
    app: FastAPI, store: Store, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": b"x" * 3_000_000, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"{SERVICE}/{run.root}/f"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "PUT", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-length", b"10000000")],
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    with caplog.at_level(logging.WARNING):
        await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert caplog.records == []
    assert await store.list("") == []
    assert await rows(app, run) == []
    assert await seq(app, run) == 1


async def test_a_file_or_a_thousand_take_as_many_statements(
    client: httpx.AsyncClient, app: FastAPI, store: Store, run: Run
) -> None:
    statements: list[str] = []

    def count(*arguments: Any) -> None:
        if "webhook" not in arguments[2]:  # their delivery asks for work beside the requests, when it likes
            statements.append(arguments[2])

    async def deletion(files: int) -> int:
        async with app.state.engine.begin() as connection:
            await connection.execute(
                text("""
                    INSERT INTO artifacts (run_id, path, size_bytes, seq)
                    SELECT :run, 'd' || :files || '/' || n, 1, 1 FROM generate_series(1, :files) n
                """),
                {"run": run.run_id, "files": files},
            )
        await put(client, f"{run.root}/d{files}/1000", b"1")
        statements.clear()
        assert (await client.delete(f"{SERVICE}/{run.root}/d{files}")).status_code == 200
        return len(statements)

    event.listen(app.state.engine.sync_engine, "before_cursor_execute", count)
    assert await deletion(1) == await deletion(1000)
    assert sum(row.deleted for row in await rows(app, run)) == 1002
