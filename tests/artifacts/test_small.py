"""The hot way of small uploads: what it does is what the ordinary way does, and trouble stays with its own request."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from runmirror.app import create_app
from runmirror.artifacts import small_queries
from runmirror.artifacts.files import Written
from runmirror.artifacts.local import LocalStore
from runmirror.artifacts.local_many import put_many
from runmirror.artifacts.places import Place, Root
from runmirror.artifacts.safe_path import RESERVED
from runmirror.settings import Settings
from tests.artifacts.conftest import Run, make_run
from tests.artifacts.recorded import Row, md5, rows, seq
from tests.artifacts.test_routes import SERVICE, put


@pytest.fixture
async def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(database_url=database_url, data_dir=tmp_path / "data", mirror=False)


def unfinished(settings: Settings) -> list[Path]:
    return list((Path(settings.artifact_root) / RESERVED).iterdir())


async def test_files_that_arrive_together_are_each_recorded_and_share_steps_of_their_run(
    client: httpx.AsyncClient, app: FastAPI, run: Run, settings: Settings
) -> None:
    other = await make_run(client)
    made = await client.post(
        "/api/2.0/mlflow/logged-models", json={"experiment_id": "0", "name": "m", "source_run_id": run.run_id}
    )
    model_id = made.json()["model"]["info"]["model_id"]
    model = f"0/models/{model_id}/artifacts"
    before = await seq(app, run)
    files = {f"{place.root}/d{n % 3}/é {n}.txt": b"%d" % n * n for place in (run, other) for n in range(12)}
    files |= {f"{model}/MLmodel": b"flavors:", f"{run.root}/empty": b""}
    answers = await asyncio.gather(*(client.put(f"{SERVICE}/{path}", content=data) for path, data in files.items()))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"")}
    for path, data in files.items():
        assert (await client.get(f"{SERVICE}/{path}")).content == data
    found = {(row.model_id, row.path): row for row in await rows(app, run)}
    assert len(found) == 14
    assert found["", "d1/é 10.txt"].md5 == md5(b"10" * 10)
    assert found[model_id, "MLmodel"].size_bytes == 8
    assert max(row.seq for row in found.values()) == await seq(app, run) < before + 14
    assert unfinished(settings) == []


async def test_the_answer_is_that_of_the_ordinary_way(client: httpx.AsyncClient, app: FastAPI, run: Run) -> None:
    async def chunks() -> AsyncIterator[bytes]:  # without a length, so this goes the ordinary way
        yield b"1"

    client.headers["X-Request-Id"] = "one"  # else each answer has its own
    hot = await client.put(f"{SERVICE}/{run.root}/hot", content=b"1")
    ordinary = await client.put(f"{SERVICE}/{run.root}/ordinary", content=chunks())
    assert (hot.status_code, hot.headers, hot.content) == (200, ordinary.headers, ordinary.content)
    assert [row.md5 for row in await rows(app, run)] == [md5(b"1")] * 2
    metrics = (await client.get("/metrics")).text
    assert f'route="{SERVICE}/{{path:path}}",status="200"}} 2.0' in metrics


async def test_a_file_that_is_overwritten_again_and_again_is_each_time_the_one_recorded(
    client: httpx.AsyncClient, app: FastAPI, run: Run
) -> None:
    for data in (b"1", b"22", b"333", b"4444"):
        await asyncio.gather(
            *(put(client, f"{run.root}/{name}", data) for name in ("same", "same", f"new-{len(data)}"))
        )
        assert (await client.get(f"{SERVICE}/{run.root}/same")).content == data
        assert {row.path: row.md5 for row in await rows(app, run)}["same"] == md5(data)
    assert len(await rows(app, run)) == 5


async def test_trouble_stays_with_the_file_that_makes_it(
    client: httpx.AsyncClient, app: FastAPI, run: Run, settings: Settings, tmp_path: Path
) -> None:
    await put(client, f"{run.root}/folder/f", b"1")
    (tmp_path / "outside").mkdir()
    (Path(settings.artifact_root) / run.root / "way").symlink_to(tmp_path / "outside")
    tried = ["good", "folder", "folder/f/below/it", "way/out", "also/good", "..", "a//b", "good"]
    answers = await asyncio.gather(
        *(client.put(f"{SERVICE}/{run.root}/{path}".replace("..", "%2E%2E"), content=b"22") for path in tried)
    )
    assert [answer.status_code for answer in answers] == [200, 400, 400, 400, 200, 400, 400, 200]
    assert [(row.path, row.size_bytes) for row in await rows(app, run)] == [
        ("also/good", 2), ("folder/f", 1), ("good", 2),
    ]  # fmt: skip
    assert list((tmp_path / "outside").iterdir()) == []
    assert unfinished(settings) == []


async def test_of_files_recorded_together_one_that_was_overtaken_is_left_out(app: FastAPI, run: Run) -> None:
    def file(path: str, expected: int, run_id: UUID) -> tuple[Place, Written, int]:
        return Place(Root(run_id, "", run.root), path), Written(1, md5(b"1")), expected

    run_id = UUID(run.run_id)
    async with app.state.hot_connections.connection() as connection:
        assert await small_queries.record_many(connection, [file("a", 0, run_id), file("b", 0, run_id)]) == [True, True]
        told = await small_queries.record_many(
            connection, [file("a", 2, run_id), file("b", 0, run_id), file("c", 1, run_id), file("d", 0, uuid4())]
        )
        assert told == [True, False, False, False]
        assert await small_queries.record_many(connection, [file("c", 1, run_id)]) == [False]
    assert await rows(app, run) == [Row("a", 1, md5(b"1"), False, 3), Row("b", 1, md5(b"1"), False, 2)]
    assert await seq(app, run) == 3


@pytest.mark.parametrize("by", ["the kernel", "hand"])
async def test_each_of_many_is_put_or_has_changed_nothing(tmp_path: Path, by: str) -> None:
    store = LocalStore(tmp_path / "artifacts")
    store.prepare()
    if not store.takes_many:
        pytest.skip("this file system has no files without a name")
    for folder in ("a/folder/below", "b"):
        (store.root / folder).mkdir(parents=True)
    (store.root / "b/old").write_bytes(b"old")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"not ours")
    (store.root / "b/link").symlink_to(tmp_path / "outside/file")
    (store.root / "way").symlink_to(tmp_path / "outside")
    wanted = {
        "a/new": True, "b/old": True, "c/d/e/new": True, "b/empty": True, "a/folder": False, "b/old/below": False,
        "b/link": False, "way/out": False, "way/new/out": False, "b/" + "x" * 300: False,
    }  # fmt: skip
    files = [(path, b"" if path == "b/empty" else path.encode()) for path in wanted]
    if by == "hand":  # the threads of the store sync by the kernel's requests, this one does not
        stored = put_many(str(store.root), str(store.uploads), files)
    else:
        stored = await store.put_many(files)
    assert {path: written is not None for path, written in zip(wanted, stored, strict=True)} == wanted
    for path, written in zip(wanted, stored, strict=True):
        if written is not None:
            data = (store.root / path).read_bytes()
            assert data == (b"" if path == "b/empty" else path.encode())
            assert written == Written(len(data), md5(data))
    (store.root / "plain").touch()
    assert {(store.root / path).stat().st_mode for path in ("a/new", "b/old")} == {
        (store.root / "plain").stat().st_mode
    }
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "outside").iterdir()] == [("file", b"not ours")]
    assert list(store.uploads.iterdir()) == []
    await store.close()


def test_nothing_stays_open_of_what_was_put_or_met_with_trouble(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "artifacts")
    store.prepare()
    if not store.takes_many:
        pytest.skip("this file system has no files without a name")
    (store.root / "file").touch()
    (store.root / "way").symlink_to(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    stored = put_many(str(store.root), str(store.uploads), [(path, b"1") for path in ("a/b/c", "file/d", "way/e/f")])
    assert [written is not None for written in stored] == [True, False, False]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_deleted_meanwhile_takes_no_file_with_it_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "artifacts")
    store.prepare()
    if not store.takes_many:
        pytest.skip("this file system has no files without a name")
    removed: list[str] = []
    linked = os.link

    def link_after_others_deleted(*what: str, **how: int) -> None:
        if what[1].endswith("second") and not removed:
            removed.extend(store._delete("a/folder"))
        linked(*what, **how)

    monkeypatch.setattr(os, "link", link_after_others_deleted)
    paths = [f"a/folder/{name}" for name in ("first", "second", "third")]
    stored = put_many(str(store.root), str(store.uploads), [(path, b"1") for path in paths])
    assert removed == paths[:1]
    assert [written is not None for written in stored] == [True, True, True]
    assert [(store.root / path).is_file() for path in paths] == [False, True, True]


async def test_a_file_system_without_nameless_files_has_small_files_stored_one_by_one(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    opened = os.open

    def as_on_nfs(path: str, flags: int, *more: int, **named: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", as_on_nfs)
    assert settings.database_url is not None
    app = create_app(settings, settings.database_url)
    async with (
        LifespanManager(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client,
    ):
        assert not app.state.artifacts.takes_many
        run = await make_run(client)
        await asyncio.gather(*(put(client, f"{run.root}/{n}", b"%d" % n) for n in range(3)))
        assert [(row.path, row.md5) for row in await rows(app, run)] == [(str(n), md5(b"%d" % n)) for n in range(3)]
        assert [(await client.get(f"{SERVICE}/{run.root}/{n}")).content for n in range(3)] == [b"0", b"1", b"2"]
    assert unfinished(settings) == []
