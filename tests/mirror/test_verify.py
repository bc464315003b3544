"""The copy in the (emulated) workspace is read back: every kind of damage is found, named, and sent again."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Metric
from runmirror.mirror import azureml
from runmirror.mirror.verify import records
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.verdicts import Outcome, Verdict, verify
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import files_of, points_of, remote_run
from tests.mirror.damage import Damage
from tests.mirror.factories import START_MS, Source, SourceRun, points


async def a_run(source: Source, name: str = "whole", *, experiment_id: str = "0") -> SourceRun:
    """With something of everything, in four writes."""
    run = await source.run(name, experiment_id=experiment_id, team="x", gone="1")
    await run.log(metrics=[*points("loss", 30), Metric("odd", math.nan, START_MS, 1)], params={"lr": "0.1", "n": "5"})
    await run.log(metrics=points("loss", 10, first=30), tags={"mlflow.parentRunId": "f" * 32})
    await run.log_inputs(2)
    await run.upload("a/b.txt", b"hello")
    await run.upload("c.bin", b"12345")
    await run.upload("deleted.txt", b"a copy is never taken back")
    await run.delete_tag("gone")
    await run.delete_file("deleted.txt")
    await run.finish()
    return run


async def verdict_on(sides: Sides, *runs: SourceRun) -> list[Verdict]:
    return await verify(sides, [run.run_id for run in runs], at_once=4)


def told(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(found.kind.value, found.name, found.change.value) for found in verdict.differences]


async def repair(engine: AsyncEngine, verdict: Verdict) -> bool:
    async with engine.begin() as connection:
        return await records.repair(connection, verdict)


def lose_points(damage: Damage) -> None:
    damage.points(*(p for p in damage.remote["metrics"] if p["step"] not in {3, 35} or p["key"] != "loss"))


def change_a_point(damage: Damage) -> None:
    damage.points(*(p | {"value": 9.5} if p["step"] == 39 else p for p in damage.remote["metrics"]))


def lose_a_metric(damage: Damage) -> None:
    damage.points(*(p for p in damage.remote["metrics"] if p["key"] != "odd"))


def repeat_points(damage: Damage) -> None:
    damage.points(*damage.remote["metrics"], *damage.remote["metrics"][:2])


def add_a_metric(damage: Damage) -> None:
    damage.points(*damage.remote["metrics"], {"key": "new", "value": 1.0, "timestamp": 1, "step": 0})


def lose_bytes(damage: Damage) -> None:
    damage.lose_file("c.bin", only_bytes=True)


DAMAGES: dict[str, tuple[Callable[[Damage], None], list[tuple[str, str, str]]]] = {
    "points lost": (lose_points, [("metric", "loss", "missing")]),
    "a point changed": (change_a_point, [("metric", "loss", "missing"), ("metric", "loss", "surplus")]),
    "a metric lost": (lose_a_metric, [("metric", "odd", "missing")]),
    "points twice": (repeat_points, [("metric", "loss", "surplus")]),
    "a metric more": (add_a_metric, [("metric", "new", "surplus")]),
    "a param lost": (lambda d: d.without("params", "lr"), [("param", "lr", "missing")]),
    "a param changed": (lambda d: d.with_value("params", "lr", "0.2"), [("param", "lr", "differs")]),
    "a param more": (lambda d: d.with_value("params", "new", "1"), [("param", "new", "surplus")]),
    "a tag lost": (lambda d: d.without("tags", "team"), [("tag", "team", "missing")]),
    "a renamed tag lost": (
        lambda d: d.without("tags", "runmirror.parent_run_id"), [("tag", "mlflow.parentRunId", "missing")]
    ),
    "another parent": (
        lambda d: d.with_value("tags", "mlflow.parentRunId", "e"), [("tag", "mlflow.parentRunId", "differs")]
    ),
    "a dataset lost": (lambda d: d.rewrite(inputs=d.remote["inputs"][:1]), [("dataset", "d1 abc", "missing")]),
    "a dataset twice": (lambda d: d.rewrite(inputs=d.remote["inputs"] * 2), [
        ("dataset", "d0 abc", "surplus"), ("dataset", "d1 abc", "surplus")
    ]),
    "a tag changed": (lambda d: d.with_value("tags", "team", "y"), [("tag", "team", "differs")]),
    "a tag more": (lambda d: d.with_value("tags", "new", "1"), [("tag", "new", "surplus")]),
    "a deleted tag there": (lambda d: d.with_value("tags", "gone", "1"), [("tag", "gone", "surplus")]),
    "the status": (lambda d: d.rewrite(status="RUNNING"), [("status", "", "differs")]),
    "the name": (lambda d: d.rewrite(run_name="other"), [("name", "", "differs")]),
    "the end": (lambda d: d.rewrite(end_time=START_MS), [("end_time", "", "differs")]),
    "the stage": (lambda d: d.rewrite(lifecycle_stage="deleted"), [("stage", "", "differs")]),
    "a file lost": (lambda d: d.lose_file("a/b.txt"), [("file", "a/b.txt", "missing")]),
    "a file without bytes": (lose_bytes, [("file", "c.bin", "missing")]),
    "a file cut": (lambda d: d.write_file("c.bin", b"1234"), [("file", "c.bin", "differs")]),
    "a file changed": (lambda d: d.write_file("c.bin", b"12354"), [("file", "c.bin", "differs")]),
    "a file more": (lambda d: d.write_file("new.txt", b"1"), [("file", "new.txt", "surplus")]),
    "the run": (lambda d: d.lose_run(), [("run", "", "missing")]),
}  # fmt: skip
# What nothing that we send can put right: it is told, and left.
STAYS = {
    "a point changed",
    "points twice",
    "a metric more",
    "a param changed",
    "a param more",
    "a tag more",
    "a file more",
    "a dataset twice",
}


async def test_every_damage_is_found_named_and_repaired_once(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    whole = await a_run(source)
    runs = {name: await a_run(source, name) for name in DAMAGES}
    await azure_worker.drain()
    before = await verdict_on(sides, whole, *runs.values())
    assert {verdict.outcome for verdict in before} == {Outcome.EQUAL}, [told(verdict) for verdict in before]
    for name, (damage, _) in DAMAGES.items():
        damage(Damage(emulator, runs[name]))
    untouched, *found = await verdict_on(sides, whole, *runs.values())
    assert untouched.outcome is Outcome.EQUAL
    assert {name: told(verdict) for name, verdict in zip(DAMAGES, found, strict=True)} == {
        name: expected for name, (_, expected) in DAMAGES.items()
    }
    lost = found[0].as_json()["differences"][0]
    assert (lost["source"]["count"], lost["target"]["count"], lost["source"]["points"]["count"]) == (40, 38, 2)
    assert [point["step"] for point in lost["source"]["points"]["first"]] == [3, 35]
    queued = {name for name, verdict in zip(DAMAGES, found, strict=True) if await repair(engine, verdict)}
    assert queued == DAMAGES.keys() - STAYS | {"a point changed"}
    await azure_worker.drain()
    after = dict(zip(DAMAGES, await verdict_on(sides, *runs.values()), strict=True))
    assert {name for name, verdict in after.items() if verdict.outcome is not Outcome.EQUAL} == STAYS
    assert told(after["a point changed"]) == [("metric", "loss", "surplus")]
    copy = remote_run(emulator, runs["points lost"].run_id.hex)
    assert [step for step, _, _ in points_of(copy, "loss")] == list(range(40))
    assert emulator.requests(unknown=True) == []


async def test_a_repair_sends_no_more_than_from_the_first_write_that_lacks(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    Damage(emulator, run).rewrite(status="RUNNING")
    (verdict,) = await verdict_on(sides, run)
    assert await repair(engine, verdict)
    assert not await repair(engine, verdict), "the run has moved on"
    before = len(emulator.requests())
    await azure_worker.drain()
    asked = [request["path"].rpartition("/")[2] for request in emulator.requests()[before:]]
    assert "update" in asked
    assert "log-batch" not in asked


async def test_reads_that_lag_are_waited_for(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    """While the lag lasts the copy looks incomplete: with less grace than lag that would be a false alarm."""
    run = await a_run(source)
    emulator.change_settings(read_lag_seconds=1.5)
    await azure_worker.drain()
    patient = replace(
        sides, settings=sides.settings.model_copy(update={"mirror_verify_grace": timedelta(seconds=1.6)})
    )  # fmt: skip
    assert [verdict.outcome for verdict in await verdict_on(patient, run)] == [Outcome.EQUAL]
    emulator.change_settings(read_lag_seconds=3600)
    (blind,) = await verdict_on(sides, run)
    assert ("metric", "loss", "missing") in told(blind)


async def test_a_run_that_is_being_written_raises_no_alarm(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, azure_worker: Worker, sides: Sides
) -> None:
    """Runs are written and mirrored all the time they are looked at; none of them is ever called different."""
    runs = [await source.run(f"run {number}") for number in range(3)]
    await azure_worker.drain()
    writing = True

    async def write(run: SourceRun) -> None:
        step = 0
        while writing:
            await run.log(metrics=points("m", 5, first=step), tags={"last": str(step)})
            await run.upload("file", str(step).encode())
            step += 5

    writers = [asyncio.create_task(write(run)) for run in runs]
    working = asyncio.create_task(azure_worker.run())
    for _ in range(3):
        for verdict in await verdict_on(sides, *runs):
            assert verdict.outcome in {Outcome.EQUAL, Outcome.BEHIND}, told(verdict)
    writing = False
    await asyncio.gather(*writers)
    await azure_worker.stop()
    await working
    await azure_worker.drain()
    assert {verdict.outcome for verdict in await verdict_on(sides, *runs)} == {Outcome.EQUAL}


async def test_a_run_that_waits_for_its_turn_is_behind_and_one_that_is_not_there_unchecked(
    source: Source, azure_worker: Worker, sides: Sides
) -> None:
    run = await source.run()
    waiting, unknown = await verify(sides, [run.run_id, UUID(int=1)], at_once=2)
    assert (waiting.outcome, unknown.outcome) == (Outcome.BEHIND, Outcome.UNCHECKED)


async def test_overwritten_files_stand_where_the_workspace_let_them_be_put(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    emulator.change_settings(write_sas=False)
    run = await a_run(source)
    await azure_worker.drain()
    await run.upload("c.bin", b"54321")
    await azure_worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)
    Damage(emulator, run).lose_file(
        next(path for path in files_of(remote_run(emulator, run.run_id.hex)) if "rev" in path)
    )
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("file", "c.bin", "differs")]


async def test_a_deep_look_reads_the_bytes_themselves(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a file without a recorded hash only its size is compared, unless somebody asks for more."""
    monkeypatch.setattr("runmirror.mirror.azureml_reader._PIECE", 1000)
    run = await source.run()
    content = bytes(range(256)) * 13
    await run.upload("large.bin", content)
    await run.upload("empty", b"")
    await azure_worker.drain()
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE artifacts SET md5 = NULL"))
    Damage(emulator, run).write_file("large.bin", content[::-1])
    deep = replace(sides, deep=True)
    (shallow,), (thorough,) = await verdict_on(sides, run), await verdict_on(deep, run)
    assert (shallow.outcome, told(thorough)) == (Outcome.EQUAL, [("file", "large.bin", "differs")])
    Damage(emulator, run).write_file("large.bin", content)
    assert [verdict.outcome for verdict in await verdict_on(deep, run)] == [Outcome.EQUAL]


async def test_a_second_copy_and_a_renamed_experiment_are_told(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, azure_settings: Settings
) -> None:
    run = await a_run(source, experiment_id=await source.experiment("here"))
    await azure_worker.drain()
    Damage(emulator, run).rename_experiment("there")
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("experiment", "here", "differs")]
    other = await source.run("other", experiment_id=run.experiment_id)
    await azure_worker.drain()
    Damage(emulator, other).with_value("tags", "runmirror.run_id", run.run_id.hex)
    (verdict,) = await verdict_on(replace(sides, experiment_names={}), run)
    assert told(verdict) == [("experiment", "here", "differs"), ("run", "", "surplus")]


async def test_a_look_that_fails_is_repeated_before_a_run_is_called_unchecked(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    emulator.add_fault("status", {"path": "contentinfo"}, status=412, times=1)
    assert [verdict.outcome for verdict in await verdict_on(sides, run)] == [Outcome.EQUAL]
    emulator.add_fault("status", {"path": "contentinfo"}, status=412, times=-1)
    (verdict,) = await verdict_on(sides, run)
    assert (verdict.outcome, "HTTP 412" in (verdict.reason or "")) == (Outcome.UNCHECKED, True)


async def test_a_throttled_workspace_is_asked_again_and_an_absent_one_is_an_outage(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    emulator.add_fault("status", {"path": "runs/get$"}, status=429, headers={"Retry-After": "0"}, times=3)
    assert [verdict.outcome for verdict in await verdict_on(sides, run)] == [Outcome.EQUAL]
    emulator.add_fault("status", {"path": "get-history"}, status=503, times=-1)
    with pytest.raises(azureml.TargetUnavailable):
        await verdict_on(sides, run)
