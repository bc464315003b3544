"""What the workspace keeps of files that were overwritten or deleted is compared with what the overflow file says."""

import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror.overflow import PATH
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.overflow import candidates
from runmirror.mirror.verify.verdicts import Outcome
from runmirror.mirror.worker import Worker
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import files_of, remote_run
from tests.mirror.damage import Damage
from tests.mirror.factories import Source, SourceRun
from tests.mirror.test_overflow import file_at
from tests.mirror.test_verify import repair, told, verdict_on


async def a_run(source: Source, worker: Worker) -> tuple[SourceRun, str]:
    """With an overwritten file, a deleted one, and its own below `runmirror/`; and where the newer content is."""
    run = await source.run()
    model_id = await run.log_model("model")
    for path in ("kept", "gone", "runmirror/mine", "model/own"):
        await run.upload(path, b"first")
    await run.upload("gone", b"of the model", model_id=model_id)
    await run.finish()
    await worker.drain()
    await run.upload("kept", b"second")
    seq = (await run.mirror()).seq
    await run.delete_file("gone")
    await worker.drain()
    return run, f"runmirror/revisions/{seq}/kept"


@pytest.fixture
async def worker(azure_worker: Worker, emulator: EmulatorProcess) -> Worker:
    emulator.change_settings(write_sas=False)
    return azure_worker


async def test_a_revision_and_a_deleted_file_that_are_told_are_equal(
    source: Source, emulator: EmulatorProcess, worker: Worker, sides: Sides
) -> None:
    run, place = await a_run(source, worker)
    paths = files_of(remote_run(emulator, run.run_id.hex)).keys()
    assert {"kept", place, "gone", "runmirror/run/runmirror/mine", "runmirror/run/model/own", "model/gone"} <= paths
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)


async def test_what_is_told_wrongly_of_files_is_found_named_and_repaired(
    source: Source, emulator: EmulatorProcess, worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    run, _ = await a_run(source, worker)
    damage = Damage(emulator, run)
    lines = [json.loads(line) for line in file_at(emulator, damage.remote).splitlines()]
    revision, deleted = ({"kind": "revision", "key": "kept"}, {"kind": "deleted_artifact", "key": "gone"})
    of_files = [line for line in lines if line["kind"] in {"revision", "deleted_artifact"}]
    assert [{name: line[name] for name in ("kind", "key")} for line in of_files] == [deleted, revision]

    async def judged(*told_of_files: dict[str, str]) -> list[tuple[str, str, str]]:
        others = [line for line in lines if line not in of_files]
        text = "".join(json.dumps(line) + "\n" for line in [*others, *told_of_files])
        damage.write_file(PATH, text.encode())
        (verdict,) = await verdict_on(sides, run)
        assert all(difference.in_overflow for difference in verdict.differences)
        return told(verdict)

    assert await judged() == [("file", "kept", "missing"), ("file", "gone", "missing")]
    assert await judged(revision | {"path": "elsewhere"}, deleted) == [("file", "kept", "differs")]
    more = {"kind": "deleted_artifact", "key": "runmirror/run/runmirror/mine"}
    assert await judged(*of_files, more) == [("file", more["key"], "surplus")]
    emulator.change_settings(write_sas=True)
    (verdict,) = await verdict_on(sides, run)
    assert await repair(engine, verdict)
    await worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)


async def test_damage_of_the_files_themselves_is_not_excused_by_what_is_told(
    source: Source, emulator: EmulatorProcess, worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    run, place = await a_run(source, worker)
    damage = Damage(emulator, run)
    damage.lose_file(place)
    damage.write_file("runmirror/run/theirs", b"1")
    damage.write_file("runmirror/run/model/own", b"other")
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [
        ("file", "kept", "differs"), ("file", "runmirror/run/model/own", "differs"),
        ("file", "runmirror/run/theirs", "surplus"),
    ]  # fmt: skip
    assert await repair(engine, verdict)
    await worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("file", "runmirror/run/theirs", "surplus")]
    assert place in files_of(damage.remote)


async def test_a_deleted_file_of_which_nothing_is_told_is_told_by_a_repair(
    source: Source, emulator: EmulatorProcess, worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    run = await source.run()
    await run.upload("gone", b"1")
    await run.delete_file("gone")
    await run.finish()
    await worker.drain()
    damage = Damage(emulator, run)
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, "deleted before it was mirrored"
    damage.write_file("gone", b"1")
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("file", "gone", "surplus")]
    assert await repair(engine, verdict)
    await worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)
    assert (await run.tags())["runmirror.status"] == "partial"


def test_a_users_file_of_that_name_is_no_overflow_file() -> None:
    theirs = f"runmirror/run/{PATH}"
    assert candidates([theirs, f"runmirror/revisions/9/{theirs}", f"runmirror/revisions/3/{PATH}"]) == [
        f"runmirror/revisions/3/{PATH}"
    ]
