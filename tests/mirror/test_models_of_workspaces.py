"""Which workspace a registered model goes to: where the run of its first version is, unless it says otherwise."""

import asyncio

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.__main__ import main
from runmirror.artifacts.files import Store
from runmirror.entities import Tag
from runmirror.mirror.link import Link, Wish, unlink, write_link
from runmirror.mirror.one_model import ELSEWHERE
from runmirror.mirror.own_tags import MIRROR_TAG, WORKSPACE_TAG
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess, Json
from tests.mirror.factories import Source, SourceRun
from tests.mirror.test_model_status import MODELS
from tests.mirror.test_registered_models import Registry, registry

__all__ = ["registry"]


@pytest.fixture
async def worker(azure_settings: Settings, emulator: EmulatorProcess, engine: AsyncEngine, store: Store) -> Worker:
    """For two workspaces: `first`, the default, and `second`, by tags alone."""
    async with engine.begin() as connection:
        await write_link(connection, Link(emulator.workspace_id), Wish("first"))
        await write_link(connection, Link(emulator.other_workspace_ids[0]), Wish("second"))
    return Worker(azure_settings.model_copy(update={"azureml_workspace": None}), engine, store)


async def run_with_files(source: Source, **tags: str) -> SourceRun:
    run = await source.run(**tags)
    await run.upload("model/MLmodel", b"flavors: {}")
    return run


def models(emulator: EmulatorProcess) -> dict[str, dict[str, int]]:
    """By workspace: how many versions of each model."""
    states = {name: emulator.state(where) for name, where in (("first", "workspace"), ("second", "second"))}
    return {name: {m["name"]: len(m["versions"]) for m in state["models"]} for name, state in states.items()}


async def told(client: httpx.AsyncClient, name: str = "m") -> Json:
    found: Json = (await client.get(MODELS, params={"name": name})).json()["registered_models"][0]
    return found


async def test_models_go_where_the_runs_of_their_first_versions_are(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, client: httpx.AsyncClient
) -> None:
    here, there = await run_with_files(source), await run_with_files(source, **{WORKSPACE_TAG: "second"})
    for name, tags in {
        "m": {},
        "n": {},
        "empty": {},
        "sent": {WORKSPACE_TAG: "SECOND"},
        "astray": {WORKSPACE_TAG: "x"},
    }.items():
        await registry.do("create_model", name, "", [Tag(key, value) for key, value in tags.items()])
    await registry.version("m", there)
    await registry.version("m", here)
    await registry.version("m", there)
    await registry.version("n", here)
    await registry.version("sent", there)
    await worker.drain()
    assert models(emulator) == {"first": {"n": 1, "empty": 0}, "second": {"m": 2, "sent": 1}}
    answer = await told(client)
    assert (answer["state"], answer["workspace"]) == ("current", "second")
    assert [v.get("problem") for v in answer["versions"]] == [None, ELSEWHERE, None]
    assert [v.get("remote_version") for v in answer["versions"]] == ["1", None, "2"]
    astray = await told(client, "astray")
    assert (astray["workspace"], astray["state"]) == (None, "due"), "a name that no link has leads nowhere"
    assert emulator.requests(unknown=True) == []


async def test_one_name_may_be_had_in_every_workspace(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker
) -> None:
    here, there = await run_with_files(source), await run_with_files(source, **{WORKSPACE_TAG: "second"})
    await registry.do("create_model", "m", "", [])
    await registry.version("m", here)
    await worker.drain()
    await registry.do("rename", "m", "old")
    await registry.do("create_model", "m", "", [])
    await registry.version("m", there)
    await worker.drain()
    assert models(emulator) == {"first": {"m": 1}, "second": {"m": 1}}


async def test_a_model_follows_the_run_of_its_first_version_and_its_own_tag(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, client: httpx.AsyncClient
) -> None:
    run = await run_with_files(source)
    await registry.do("create_model", "m", "", [])
    await registry.version("m", run)
    await registry.do("set_alias", "m", "champion", "1")
    await worker.drain()
    assert models(emulator) == {"first": {"m": 1}, "second": {}}
    await run.log(tags={WORKSPACE_TAG: "second"})
    await worker.drain()
    assert models(emulator) == {"first": {"m": 1}, "second": {"m": 1}}, "the copy that was there is left alone"
    assert emulator.state("second")["models"][0]["aliases"] == {"champion": 1}
    await registry.do("set_model_tag", "m", Tag(WORKSPACE_TAG, "first"))
    await worker.drain()
    answer = await told(client)
    assert (answer["workspace"], answer["state"], answer["versions"][0]["remote_version"]) == ("first", "current", "1")
    assert models(emulator) == {"first": {"m": 1}, "second": {"m": 1}}, "it is found again, not made again"


async def test_unlinking_and_replacing_a_workspace_makes_its_models_due_for_the_new_place(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, engine: AsyncEngine,
    azure_settings: Settings, store: Store,
) -> None:  # fmt: skip
    run = await run_with_files(source, **{WORKSPACE_TAG: "second"})
    for name in ("m", "gone"):
        await registry.do("create_model", name, "", [])
        await registry.version(name, run)
    await worker.drain()
    assert models(emulator)["second"] == {"m": 1, "gone": 1}
    await registry.do("delete_model", "gone")
    await run.delete_tag(WORKSPACE_TAG)
    await unlink(engine, "second")
    await worker.drain()
    assert models(emulator)["first"] == {"m": 1}
    async with engine.connect() as connection:
        states = (await connection.execute(text("SELECT state, deleted FROM mirrored_models"))).all()
    assert states == [("current", False)], "of one that was deleted nothing is left to tell"
    async with engine.begin() as connection:
        assert await write_link(connection, Link(emulator.other_workspace_ids[0]))
    await Worker(azure_settings.model_copy(update={"azureml_workspace": None}), engine, store).drain()
    assert models(emulator)["second"] == {"m": 1, "gone": 1}, "it is found again by its tag"
    row = await registry.row("m")
    assert (row.state, row.remote_name) == ("current", "m")


async def test_a_model_that_is_told_to_stay_out_is_off_until_it_may_come(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, client: httpx.AsyncClient
) -> None:
    run = await run_with_files(source)
    await registry.do("create_model", "m", "", [Tag(MIRROR_TAG, "off")])
    await registry.do("create_model", "later", "", [])
    await registry.version("m", run)
    await worker.drain()
    assert models(emulator)["first"] == {"later": 0}
    assert (await told(client))["state"] == "off"
    await registry.do("set_model_tag", "later", Tag(MIRROR_TAG, "off"))
    await registry.version("later", run)
    await registry.do("delete_model_tag", "m", MIRROR_TAG)
    await worker.drain()
    assert models(emulator)["first"] == {"later": 0, "m": 1}
    status = (await client.get("/api/runmirror/v1/mirror")).json()
    assert (status["models_behind"], status["models_quarantined"]) == (0, 0)
    await registry.do("set_model_tag", "later", Tag(MIRROR_TAG, "on"))
    await worker.drain()
    assert models(emulator)["first"] == {"later": 1, "m": 1}


async def test_a_version_of_a_run_that_stays_out_waits_and_holds_up_no_other(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker
) -> None:
    out, run = await run_with_files(source, **{MIRROR_TAG: "off"}), await run_with_files(source)
    await registry.do("create_model", "m", "", [])
    await registry.version("m", out)
    await registry.version("m", run)
    await worker.drain()
    assert models(emulator)["first"] == {"m": 1}
    await out.delete_tag(MIRROR_TAG)
    await worker.drain()
    assert models(emulator)["first"] == {"m": 2}


async def test_a_workspace_that_fails_keeps_no_model_from_the_other(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker
) -> None:
    emulator.add_fault("status", {"path": "workspaces/workspace/"}, status=503, times=-1)
    there = await run_with_files(source, **{WORKSPACE_TAG: "second"})
    for name in ("m", "n"):
        await registry.do("create_model", name, "", [])
    await registry.version("n", there)
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        while (await registry.row("n")).state != "current":
            await asyncio.sleep(0.05)
    assert models(emulator) == {"first": {}, "second": {"n": 1}}
    await worker.stop()
    await running


async def test_a_lease_of_a_model_that_moves_is_lost_and_the_next_waits_for_its_last_request(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, engine: AsyncEngine
) -> None:
    """Another worker holds it, and is in the middle of something."""
    run = await run_with_files(source)
    await registry.do("create_model", "m", "", [])
    await registry.version("m", run)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM mirror_links WHERE name = 'second'"))
        await connection.execute(
            text("""
            UPDATE mirrored_models SET link_id = 0, state = 'leased', lease_token = gen_random_uuid(),
                lease_expires_at = now() + interval '1 second', remote_name = 'x', told = '{"tags": ["a"]}'
        """)
        )
        await connection.execute(
            text("INSERT INTO mirrored_versions SELECT registered_model_id, 1, '7' FROM mirrored_models")
        )
        expires = await connection.scalar(text("SELECT lease_expires_at FROM mirrored_models"))
    await worker.drain()
    row = await registry.row("m")
    assert (row.state, row.remote_name, row.lease_token) == ("current", "m", None)
    assert row.mirrored_at > expires
    assert models(emulator)["first"] == {"m": 1}


async def test_the_replay_of_a_model_is_a_command(
    source: Source, registry: Registry, emulator: EmulatorProcess, worker: Worker, settings: Settings
) -> None:
    here, there = await run_with_files(source), await run_with_files(source, **{WORKSPACE_TAG: "second"})
    await registry.do("create_model", "m", "", [])
    await registry.version("m", here)
    await registry.version("m", there)
    await worker.drain()
    assert models(emulator)["first"] == {"m": 1}
    await there.delete_tag(WORKSPACE_TAG)
    await worker.drain()
    environment = {"RUNMIRROR_DATABASE_URL": settings.database_url, "RUNMIRROR_DATA_DIR": str(settings.data_dir)}

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, ["replay", *arguments], env=environment)
        return done.exit_code, done.stdout, done.stderr

    line = f"registered model 'm': version 2: {ELSEWHERE}\n"
    assert await asyncio.to_thread(call, "--all", "--dry-run") == (
        0, line, "0 runs and 1 registered models would go back in the queue\n",
    )  # fmt: skip
    assert (await registry.row("m")).state == "current"
    assert await asyncio.to_thread(call, "--model", "m") == (0, line, "1 registered models are back in the queue\n")
    code, _, err = await asyncio.to_thread(call, "--model", "nobody's")
    assert (code, "there is no registered model" in err) == (2, True)
    await worker.drain()
    assert models(emulator)["first"] == {"m": 2}
    assert await asyncio.to_thread(call, "--model", "m", "--json") == (
        0,
        "",
        "0 registered models are back in the queue\n",
    )
