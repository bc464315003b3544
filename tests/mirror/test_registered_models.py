"""Registered models in the workspace's registry: once each, with the files of the mirrored run, as they are here."""

import asyncio
import json
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import Tag
from runmirror.mirror import destinations, model_places, model_queue
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.worker import Worker
from runmirror.registry import service
from runmirror.settings import Settings
from tests.azureml_emulator.conftest import azureml_python
from tests.azureml_emulator.process import EmulatorProcess, Json
from tests.azureml_emulator.rest import Rest
from tests.mirror.azure import remote_run
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import Source, SourceRun
from tests.mirror.test_crash import struck, until
from tests.mirror.worker_process import working

__all__ = ["azureml_python"]

SCRIPT = Path(__file__).parents[1] / "azureml_emulator" / "scripts" / "read_model_back.py"


class Registry:
    """The registry here, written as its routes write."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        async with self.engine.begin() as connection:
            return await getattr(service, name)(connection, *arguments, **named)

    async def version(self, name: str, run: SourceRun, path: str = "model", **tags: str) -> int:
        number: int = await self.do(
            "create_version", name, source=f"runs:/{run.run_id.hex}/{path}", run_id=run.run_id.hex, model_id=None,
            tags=[Tag(key, value) for key, value in tags.items()], run_link="", description=f"from {path}",
        )  # fmt: skip
        return number

    async def row(self, name: str) -> Any:
        async with self.engine.connect() as connection:
            query = (
                "SELECT m.* FROM mirrored_models m JOIN registered_models USING (registered_model_id) WHERE name = :n"
            )
            return (await connection.execute(text(query), {"n": name})).one()


@pytest.fixture
def registry(engine: AsyncEngine) -> Registry:
    return Registry(engine)


@pytest.fixture
async def run(source: Source, registry: Registry) -> SourceRun:
    """A run with a model's files; and the registered model `m`."""
    made = await source.run()
    await made.upload("model/MLmodel", b"flavors: {}")
    await made.upload("model/data/weights.bin", b"12345")
    await registry.do("create_model", "m", "a model", [Tag("team", "x")])
    return made


def remote(emulator: EmulatorProcess, name: str = "m") -> Json:
    (found,) = [model for model in emulator.state()["models"] if model["name"] == name]
    model: Json = found
    return model


def spoken(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if not key.startswith("runmirror.")}


async def test_a_registered_model_stands_in_the_workspace_and_follows(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    for number in range(2):
        await registry.version("m", run, quality=f"{number}")
    await registry.do("set_alias", "m", "champion", "1")
    await registry.do("move_version", "m", "1", "Production", archive=False)
    await azure_worker.drain()
    there = remote(emulator)
    remote_id = remote_run(emulator, run.run_id.hex)["run_id"]
    assert (there["description"], spoken(there["tags"]), there["aliases"]) == (
        "a model",
        {"team": "x"},
        {"champion": 1},
    )
    assert [version["run_id"] for version in there["versions"]] == [remote_id] * 2
    assert all(version["source"].endswith(f"/runs/{remote_id}/artifacts/model") for version in there["versions"])
    assert [(v["version"], v["stage"], v["description"], spoken(v["tags"])) for v in there["versions"]] == [
        (1, "Production", "from model", {"quality": "0"}), (2, "None", "from model", {"quality": "1"}),
    ]  # fmt: skip

    with emulator.client() as client:  # what others say of it stays
        Rest(emulator, client, emulator.token()).post(
            "/registered-models/set-tag", {"name": "m", "key": "reviewed", "value": "yes"}
        ).raise_for_status()
    await registry.do("set_alias", "m", "champion", "2")
    await registry.do("set_alias", "m", "old", "1")
    await registry.do("delete_model_tag", "m", "team")
    await registry.do("describe_model", "m", "better")
    await registry.do("delete_version_tag", "m", "2", "quality")
    await registry.do("describe_version", "m", "2", None)
    await registry.do("move_version", "m", "2", "Production", archive=True)
    await azure_worker.drain()
    there = remote(emulator)
    assert (there["description"], spoken(there["tags"])) == ("better", {"reviewed": "yes"})
    assert there["aliases"] == {"champion": 2, "old": 1}
    assert [(v["stage"], v["description"] or "", spoken(v["tags"])) for v in there["versions"]] == [
        ("Archived", "from model", {"quality": "0"}), ("Production", "", {}),
    ]  # fmt: skip
    await registry.do("delete_alias", "m", "old")
    await azure_worker.drain()
    assert remote(emulator)["aliases"] == {"champion": 2}
    before = len(emulator.requests())
    await azure_worker.drain()
    asked = [request["path"] for request in emulator.requests()[before:]]
    assert not [path for path in asked if "models" in path], "nothing is asked when nothing has changed"
    assert emulator.requests(unknown=True) == []


async def test_a_version_of_a_logged_model_lies_in_its_folder(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    """The folder `model` was the run's own when the logged model of that name was made."""
    model_id = await run.log_model("model")
    await run.upload("MLmodel", b"flavors: {}", model_id=model_id)
    await registry.do(
        "create_version", "m", source=f"models:/{model_id}", run_id=None, model_id=model_id, tags=[], run_link="",
        description="",
    )  # fmt: skip
    await azure_worker.drain()
    (version,) = remote(emulator)["versions"]
    assert version["source"].endswith(f"/artifacts/runmirror/models/{model_id}")
    assert any(
        path["path"] == f"runmirror/models/{model_id}/MLmodel"
        for path in remote_run(emulator, run.run_id.hex)["artifacts"]
    )


async def test_a_version_waits_for_its_files_and_the_later_ones_with_it(
    registry: Registry, run: SourceRun, source: Source, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    poison = await source.run("poison")
    await poison.upload("model/MLmodel", b"x")
    await poison.upload("model/late", b"x")
    await poison.store.delete(f"0/{poison.run_id.hex}/artifacts/model/late")
    emulator.add_fault("status", {"method": "PUT", "path": "weights.bin$"}, status=503, times=2)
    await registry.version("m", run)
    await registry.version("m", run)
    await registry.do("create_model", "n", "", [])
    await registry.version("n", poison)
    await registry.version("n", run)
    await azure_worker.drain()
    versions = remote(emulator)["versions"]
    assert [(v["version"], v["tags"]["runmirror.version"]) for v in versions] == [(1, "1"), (2, "2")]
    assert [v["tags"]["runmirror.version"] for v in remote(emulator, "n")["versions"]] == ["2"]
    row = await registry.row("n")
    assert (row.state, row.waits_run_id) == ("due", poison.run_id)
    uploaded = [r["number"] for r in emulator.requests() if r["path"].endswith("weights.bin") and r["status"] == 201]
    created = [r["number"] for r in emulator.requests() if r["path"].endswith("model-versions/create")]
    assert uploaded[0] < created[0]


@pytest.mark.parametrize("path", ["registered-models/create", "model-versions/create", "model-versions/search"])
@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "truncate"])
async def test_a_lost_answer_makes_nothing_twice(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker, path: str, kind: str
) -> None:
    await registry.version("m", run)
    emulator.add_fault(kind, {"path": path})
    await azure_worker.drain()
    assert [fault["hits"] for fault in emulator.faults()] == [1]
    assert [version["version"] for version in remote(emulator)["versions"]] == [1]
    assert (await registry.row("m")).state == "current"


async def test_a_worker_killed_within_the_creation_of_a_version_leaves_one(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_settings: Settings, tmp_path: Path
) -> None:
    await registry.version("m", run)
    fault = emulator.add_fault("hang_after", {"path": "model-versions/create$"}, seconds=60)
    with working(azure_settings, emulator, tmp_path / "log") as worker:
        await until(lambda: struck(emulator))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    with emulator.control() as control:
        control.delete(f"/faults/{fault}").raise_for_status()

    async def is_current() -> bool:
        return bool((await registry.row("m")).state == "current")

    with working(azure_settings, emulator, tmp_path / "log"):
        await until(is_current)
    assert [version["version"] for version in remote(emulator)["versions"]] == [1]


@pytest.mark.parametrize("policy", ["keep", "delete"])
async def test_what_is_deleted_here_is_marked_or_deleted_there(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine,
    store: Store, policy: str,
) -> None:  # fmt: skip
    worker = Worker(azure_settings.model_copy(update={"mirror_deleted_models": policy}), engine, store)
    for _ in range(3):
        await registry.version("m", run)
    await worker.drain()
    await registry.do("delete_version", "m", "2")
    await worker.drain()

    def held() -> list[tuple[int, bool]]:
        return [(v["version"], v["tags"].get("runmirror.deleted") == "true") for v in remote(emulator)["versions"]]

    assert held() == ([(1, False), (2, True), (3, False)] if policy == "keep" else [(1, False), (3, False)])
    await registry.do("delete_model", "m")
    await worker.drain()
    assert remote(emulator)["tags"]["runmirror.deleted"] == "true"
    assert held() == ([(1, True), (2, True), (3, True)] if policy == "keep" else [])

    await registry.do("create_model", "m", "again", [])
    await registry.version("m", run)
    await worker.drain()
    there = remote(emulator)
    assert (there["description"], "runmirror.deleted" in there["tags"]) == ("again", False)
    assert there["versions"][-1]["tags"]["runmirror.version"] == "1"
    assert held()[-1] == (4, False)


async def test_a_model_that_takes_the_name_of_a_deleted_one_is_never_taken_for_deleted(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    """Both are due at once, and the older one's turn is hindered."""
    await registry.version("m", run)
    await azure_worker.drain()
    await registry.do("delete_model", "m")
    await registry.do("create_model", "m", "again", [])
    await registry.version("m", run)
    emulator.add_fault("status", {"path": "model-versions/search$"}, status=500, times=2)
    await azure_worker.drain()
    there = remote(emulator)
    assert (there["description"], "runmirror.deleted" in there["tags"]) == ("again", False)
    assert [version["tags"].get("runmirror.deleted") for version in there["versions"]] == ["true", None]
    assert (await registry.row("m")).state == "current"


async def test_a_name_that_others_have_there_is_left_to_them(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    with emulator.client() as client:
        Rest(emulator, client, emulator.token()).post("/registered-models/create", {"name": "m"}).raise_for_status()
    await registry.version("m", run)
    await registry.do("create_model", "ünïcode & spaces", "", [])
    await azure_worker.drain()
    own = (await registry.row("m")).registered_model_id
    assert remote(emulator)["versions"] == []
    assert len(remote(emulator, f"m-{own}")["versions"]) == 1
    assert remote(emulator, f"m-{own}")["tags"]["runmirror.name"] == "m"
    other = (await registry.row("ünïcode & spaces")).remote_name
    assert remote(emulator, other)["tags"]["runmirror.name"] == "ünïcode & spaces"


async def test_a_renamed_model_keeps_its_place_and_another_may_have_the_name_here(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    await azure_worker.drain()
    await registry.do("rename", "m", "renamed")
    await registry.do("create_model", "m", "second", [])
    await azure_worker.drain()
    assert remote(emulator)["tags"]["runmirror.name"] == "renamed"
    second = await registry.row("m")
    assert second.remote_name == f"m-{second.registered_model_id}"
    assert remote(emulator, second.remote_name)["description"] == "second"


async def test_where_the_service_takes_no_aliases_a_tag_tells_them(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker
) -> None:
    emulator.change_settings(aliases=False)
    await registry.version("m", run)
    await registry.do("set_alias", "m", "champion", "1")
    await azure_worker.drain()
    assert remote(emulator)["tags"]["runmirror.alias.champion"] == "1"
    await registry.do("delete_alias", "m", "champion")
    await azure_worker.drain()
    assert "runmirror.alias.champion" not in remote(emulator)["tags"]


async def test_prompts_stay_here(registry: Registry, emulator: EmulatorProcess, azure_worker: Worker) -> None:
    await registry.do("create_model", "prompt", "", [Tag("mlflow.prompt.is_prompt", "true")])
    await azure_worker.drain()
    assert emulator.state()["models"] == []
    assert (await registry.row("prompt")).state == "current"


async def test_models_from_before_the_queue_are_found_and_another_workspace_gets_all(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_settings: Settings, azure_worker: Worker,
    engine: AsyncEngine, store: Store,
) -> None:  # fmt: skip
    await registry.version("m", run)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM mirrored_models"))
    await azure_worker.drain()
    assert len(remote(emulator)["versions"]) == 1
    emulator.reset()
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
    await Worker(azure_settings, engine, store).drain()
    assert len(remote(emulator)["versions"]) == 1


async def test_a_late_worker_changes_nothing(registry: Registry, run: SourceRun, engine: AsyncEngine) -> None:
    times = {"ttl": timedelta(0), "debounce": timedelta(0), "settle": timedelta(0)}
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID))
        await destinations.route(connection, settle=timedelta(0))
        await model_places.place(connection, settle=timedelta(0), everything=False)
        (late,) = await model_queue.claim(connection, workspace_id=WORKSPACE_ID, most=5, **times)
    async with engine.begin() as connection:
        (lease,) = await model_queue.claim(connection, workspace_id=WORKSPACE_ID, most=5, **times)
    for change in (
        lambda c: model_queue.tell(c, late, {}, timedelta(1)),
        lambda c: model_queue.save_version(c, late, 1, ttl=timedelta(1), remote_version="1"),
        lambda c: model_queue.finish(c, late, seq=1, told={}, wait=None),
        lambda c: model_queue.quarantine(c, late, reason="late"),
    ):
        with pytest.raises(LeaseLost):
            async with engine.begin() as connection:
                await change(connection)
    await registry.do("describe_model", "m", "written meanwhile")
    async with engine.begin() as connection:
        await model_queue.finish(connection, lease, seq=1, told={}, wait=None)
    assert (await registry.row("m")).state == "due"


async def test_microsofts_clients_read_the_model_with_its_files(
    registry: Registry, run: SourceRun, emulator: EmulatorProcess, azure_worker: Worker, azureml_python: Path
) -> None:
    await registry.version("m", run, quality="good")
    await registry.do("set_alias", "m", "champion", "1")
    await azure_worker.drain()
    ready = emulator.ready
    done = await asyncio.to_thread(
        subprocess.run,
        [str(azureml_python), str(SCRIPT), ready["subscription_id"], ready["resource_group"], ready["workspace_name"]],
        env=emulator.env(), cwd=emulator.home, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    files = {"MLmodel": "flavors: {}", "data/weights.bin": "12345"}
    remote_id = remote_run(emulator, run.run_id.hex)["run_id"]
    assert seen["mlflow"] == {"version": "1", "run_id": remote_id, "champion": "1", "quality": "good", "files": files}
    assert seen["core"] == {"id": "m:1", "run_id": remote_id, "quality": "good", "files": files}
