"""What of a registered model the workspace does not have is seen, and stands in nobody's way."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Tag
from runmirror.mirror import model_queue
from runmirror.mirror.commands import describe
from runmirror.mirror.wire import MirrorStatusAnswer
from runmirror.mirror.worker import Worker
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import remote_run
from tests.mirror.factories import Source, SourceRun
from tests.mirror.test_crash import struck, until
from tests.mirror.test_registered_models import Registry, registry, remote, run, spoken

__all__ = ["registry", "run"]

MIRROR = "/api/runmirror/v1/mirror"
MODELS = f"{MIRROR}/registered-models"


async def test_what_azure_refuses_of_a_model_is_seen_and_the_rest_is_there(
    client: httpx.AsyncClient, registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker,
    engine: AsyncEngine,
) -> None:  # fmt: skip
    refused = emulator.add_fault("status", {"path": "registered-models/set-tag$"}, status=400, times=-1)
    stage = emulator.add_fault("status", {"path": "model-versions/transition-stage$"}, status=404, times=-1)
    emulator.change_settings(aliases=False)
    await registry.version("m", run, quality="good")
    await registry.do("set_alias", "m", "champion", "1")
    await registry.do("move_version", "m", "1", "Production", archive=False)
    await azure_worker.drain()
    (version,) = remote(emulator)["versions"]
    assert (remote(emulator)["description"], spoken(version["tags"])) == ("a model", {"quality": "good"})
    (told,) = (await client.get(MODELS, params={"name": "m"})).json()["registered_models"]
    assert (told["state"], told["remote_name"]) == ("current", "m")
    assert [problem.partition(" is refused: ")[0] for problem in told["problems"]] == [
        "the tag 'team'", "the stage of version 1", "the alias 'champion'",
    ]  # fmt: skip
    status = (await client.get(MIRROR)).json()
    assert (status["models_behind"], status["models_quarantined"], status["models_partial"]) == (0, 0, 1)
    lines = describe(MirrorStatusAnswer.model_validate(status)).splitlines()
    assert "models        0 behind, 0 quarantined, 1 partial" in lines
    assert lines[-1].startswith("model 'm': the tag 'team' is refused: ")
    assert lines[-1].endswith(" (and 2 more)")

    with emulator.control() as control:
        for fault in (refused, stage):
            control.delete(f"/faults/{fault}").raise_for_status()
    async with engine.begin() as connection:
        assert await model_queue.replay(connection) == 1
    await azure_worker.drain()
    (told,) = (await client.get(MODELS, params={"name": "m"})).json()["registered_models"]
    assert told["problems"] == []
    assert remote(emulator)["versions"][0]["stage"] == "Production"
    async with engine.begin() as connection:
        assert await model_queue.replay(connection) == 0


async def test_a_version_that_azure_refuses_for_what_is_said_of_it_is_there_without(
    client: httpx.AsyncClient, registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    emulator.add_fault("status", {"path": "model-versions/create$"}, status=400)
    await registry.version("m", run, quality="good")
    await azure_worker.drain()
    (version,) = remote(emulator)["versions"]
    assert (version["description"], spoken(version["tags"])) == ("from model", {"quality": "good"}), "said later"
    emulator.add_fault("status", {"path": "model-versions/create$"}, status=400, times=2)
    await registry.version("m", run)
    await registry.version("m", run)
    await azure_worker.drain()
    (told,) = (await client.get(MODELS, params={"in_trouble": True})).json()["registered_models"]
    assert [version.get("remote_version") for version in told["versions"]] == ["1", None, "2"]
    assert "400" in told["versions"][1]["problem"]
    assert remote(emulator)["versions"][1]["tags"]["runmirror.version"] == "3"


async def test_files_that_the_workspace_keeps_in_an_earlier_form_make_no_version(
    client: httpx.AsyncClient, registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    emulator.change_settings(write_sas=False)
    await run.finish()
    await azure_worker.drain()
    await run.upload("model/data/weights.bin", b"98765")
    await run.upload("other/MLmodel", b"flavors: {}")
    await registry.version("m", run)
    await registry.version("m", run, "other")
    await azure_worker.drain()
    (version,) = remote(emulator)["versions"]
    assert version["tags"]["runmirror.version"] == "2"
    (told,) = (await client.get(MODELS)).json()["registered_models"]
    assert "overwritten" in told["versions"][0]["problem"]


@pytest.mark.parametrize("status", [403, 500])
async def test_a_registry_that_fails_alone_stops_no_run_and_is_seen(
    client: httpx.AsyncClient, registry: Registry, run: SourceRun, source: Source, emulator: EmulatorProcess,
    azure_worker: Worker, status: int,
) -> None:  # fmt: skip
    fault = emulator.add_fault("status", {"path": "/(registered-models|model-versions)/"}, status=status, times=-1)
    await registry.version("m", run)
    working = asyncio.create_task(azure_worker.run())
    try:
        await until(lambda: struck(emulator))
        runs = [await source.run(f"r{number}") for number in range(5)]

        async def are_there() -> bool:
            return all([(await run.mirror()).state == "current" for run in runs])

        await until(are_there)

        async def is_seen() -> bool:
            told = (await client.get(MIRROR)).json()
            return bool(told["models_in_trouble"]) and told["state"] == "ok"

        await until(is_seen)
        with emulator.control() as control:
            control.delete(f"/faults/{fault}").raise_for_status()

        async def is_mirrored() -> bool:
            return bool((await registry.row("m")).state == "current")

        await until(is_mirrored)
    finally:
        await azure_worker.stop()
        await working
    assert len(remote(emulator)["versions"]) == 1
    assert (await registry.row("m")).attempt == 0


async def test_an_outage_pauses_models_too_and_blames_none(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    await azure_worker.drain()
    emulator.add_fault("status", {"path": "/api/2.0/mlflow/"}, status=503, times=8)
    await registry.version("m", run)
    await azure_worker.drain()
    assert len(remote(emulator)["versions"]) == 1
    row = await registry.row("m")
    assert (row.state, row.attempt, row.last_error) == ("current", 0, None)


async def test_an_unknown_model_is_not_found_and_one_before_its_first_turn_is_due(
    client: httpx.AsyncClient, registry: Registry, engine: AsyncEngine
) -> None:
    assert (await client.get(MODELS, params={"name": "nobody"})).status_code == 404
    await registry.do("create_model", "old", "", [Tag("a", "b")])
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM mirrored_models"))
    (told,) = (await client.get(MODELS, params={"name": "old"})).json()["registered_models"]
    assert (told["state"], told["versions"], told["problems"]) == ("due", [], [])


async def test_a_user_may_use_our_prefix_for_tags_of_a_model(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    await registry.version("m", run, **{"runmirror.note": "mine", "runmirror.model": "not mine"})
    await azure_worker.drain()
    (version,) = remote(emulator)["versions"]
    assert version["tags"]["runmirror.note"] == "mine"
    assert version["tags"]["runmirror.model"] != "not mine"
    assert remote_run(emulator, run.run_id.hex)["run_id"] == version["run_id"]
