"""A run that the workspace cannot hold whole: what belongs into the run and what into the file, both are compared."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import LifecycleStage, Metric
from runmirror.mirror.overflow import PATH
from runmirror.mirror.quarantine import Choice, replay
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.session import verify_runs
from runmirror.mirror.verify.verdicts import Outcome, verify
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import points_of
from tests.mirror.damage import Damage
from tests.mirror.factories import START_MS, Source, SourceRun, points
from tests.mirror.test_overflow import LOWER, file_at
from tests.mirror.test_verify import repair, told, verdict_on

PARENT = "mlflow.parentRunId"
SMALL = {
    "mirror_limit_params": 3, "mirror_limit_metrics": 2, "mirror_limit_tags": 11, "mirror_limit_points": 10,
    "mirror_limit_inputs": 1, "mirror_limit_run_name": 12,
}  # fmt: skip


@pytest.fixture
def small_worker(azure_settings: Settings, engine: AsyncEngine, store: Store) -> Worker:
    """A worker that believes in tight limits."""
    return Worker(azure_settings.model_copy(update=SMALL), engine, store)


async def a_run(source: Source, name: str = "a name too long") -> SourceRun:
    """With something of every kind on either side of the limits."""
    run = await source.run(name)
    await run.log(params={f"p{n}": "1" for n in range(5)}, metrics=[*points("a", 8), *points("b", 3), *points("c", 3)])
    await run.log(metrics=[*points("a", 5, first=8), Metric("c", math.nan, START_MS, 9)])
    await run.log(tags={f"t{n}": "1" for n in range(6)} | {"long": "x" * 1001})
    await run.log_inputs(2)
    await run.finish()
    return run


def lines_of(emulator: EmulatorProcess, damage: Damage) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file_at(emulator, damage.remote).splitlines()]


def rewrite_lines(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> "Spoil":
    def spoil(emulator: EmulatorProcess, damage: Damage) -> None:
        kept = change(lines_of(emulator, damage))
        damage.write_file(PATH, "".join(json.dumps(line) + "\n" for line in kept).encode())

    return spoil


def without(**wanted: object) -> "Spoil":
    """The file without the first line that fits."""

    def drop(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        at = next(n for n, line in enumerate(lines) if wanted.items() <= line.items())
        return [*lines[:at], *lines[at + 1 :]]

    return rewrite_lines(drop)


def more(**line: object) -> "Spoil":
    return rewrite_lines(lambda lines: [*lines, line])


Spoil = Callable[[EmulatorProcess, Damage], None]
Told = list[tuple[str, str, str]]
DAMAGES: dict[str, tuple[Spoil, Told]] = {
    "no file": (lambda _, d: d.lose_file(PATH), [("file", PATH, "missing")]),
    "a file without bytes": (lambda _, d: d.lose_file(PATH, only_bytes=True), [("file", PATH, "missing")]),
    "no tag of the file": (
        lambda _, d: d.without("tags", "runmirror.overflow"), [("tag", "runmirror.overflow", "differs")]
    ),
    "a param": (without(kind="param", key="p3"), [("param", "p3", "missing")]),
    "a param too much": (more(kind="param", key="p0", value="1"), [("param", "p0", "surplus")]),
    "a tag": (without(kind="tag", key="long"), [("tag", "long", "missing")]),
    "another tag": (
        rewrite_lines(lambda lines: [x | ({"value": "y"} if x.get("key") == "long" else {}) for x in lines]),
        [("tag", "long", "differs")],
    ),
    "a tag too much": (more(kind="tag", key="mlflow.user", value="1"), [("tag", "mlflow.user", "surplus")]),
    "a dataset": (without(kind="dataset"), [("dataset", "d1 abc", "missing")]),
    "the name": (without(kind="run_name"), [("name", "", "differs")]),
    "a point": (without(kind="metric", key="a", step=9), [("metric", "a", "missing")]),
    "a NaN": (without(kind="metric", key="c", value="NaN"), [("metric", "c", "missing")]),
    "a point twice": (
        more(kind="metric", key="c", value=0.125, timestamp=START_MS + 1, step=1), [("metric", "c", "surplus")]
    ),
    "no line is JSON": (
        lambda _, d: d.write_file(PATH, b"{no json\n\xff\n[1]\n"),
        [
            ("param", "p3", "missing"), ("param", "p4", "missing"), ("tag", "long", "missing"),
            ("tag", "mlflow.runName", "missing"), ("tag", "t4", "missing"),
            ("tag", "t5", "missing"), ("dataset", "d1 abc", "missing"),
            ("name", "", "differs"), ("metric", "a", "missing"), ("metric", "c", "missing"),
        ],
    ),
}  # fmt: skip


async def test_every_damage_of_the_overflow_file_is_found_named_and_repaired(
    source: Source, emulator: EmulatorProcess, small_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    whole = await a_run(source)
    runs = {name: await a_run(source) for name in DAMAGES}
    await small_worker.drain()
    assert (await whole.mirror()).partial
    kinds = {line["kind"] for line in lines_of(emulator, Damage(emulator, whole))}
    assert kinds == {"overflow", "run_name", "param", "tag", "dataset", "metric"}
    before = await verdict_on(sides, whole, *runs.values())
    assert {verdict.outcome for verdict in before} == {Outcome.EQUAL}, [told(verdict) for verdict in before]
    for name, (spoil, _) in DAMAGES.items():
        spoil(emulator, Damage(emulator, runs[name]))
    untouched, *found = await verdict_on(sides, whole, *runs.values())
    assert untouched.outcome is Outcome.EQUAL
    assert {name: told(verdict) for name, verdict in zip(DAMAGES, found, strict=True)} == {
        name: expected for name, (_, expected) in DAMAGES.items()
    }
    assert all(difference.in_overflow for verdict in found for difference in verdict.differences)
    for verdict in found:
        assert await repair(engine, verdict)
    await small_worker.drain()
    after = await verdict_on(sides, *runs.values())
    assert {verdict.outcome for verdict in after} == {Outcome.EQUAL}, [told(verdict) for verdict in after]
    assert emulator.requests(unknown=True) == []


async def test_damage_of_the_run_itself_is_not_excused_by_the_file(
    source: Source, emulator: EmulatorProcess, small_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    run = await a_run(source)
    await small_worker.drain()
    damage = Damage(emulator, run)
    damage.without("params", "p1")
    damage.with_value("params", "p4", "theirs")
    damage.with_value("tags", "long", "stale")
    damage.points(*(p for p in damage.remote["metrics"] if (p["key"], p["step"]) != ("a", 2)))
    damage.rewrite(run_name="another")
    (verdict,) = await verdict_on(sides, run)
    expected = [
        ("name", "", "differs"), ("param", "p1", "missing"), ("param", "p4", "differs"), ("tag", "long", "differs"),
        ("metric", "a", "missing"),
    ]  # fmt: skip
    assert told(verdict) == expected
    assert await repair(engine, verdict)
    await small_worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("param", "p4", "differs")], "write-once there as well; the true value is in the file"
    assert [step for step, _, _ in points_of(damage.remote, "a")] == list(range(8))


async def test_the_newest_overflow_file_counts_wherever_azure_let_it_be_put(
    source: Source, emulator: EmulatorProcess, small_worker: Worker, sides: Sides
) -> None:
    run = await a_run(source)
    await small_worker.drain()
    for granted in (False, False, True):
        emulator.change_settings(write_sas=granted)
        await run.log(params={f"after {granted} {(await run.mirror()).seq}": "1"}, metrics=points("c", 2, first=20))
        await small_worker.drain()
        (verdict,) = await verdict_on(sides, run)
        assert verdict.outcome is Outcome.EQUAL, told(verdict)
    revisions = [file["path"] for file in Damage(emulator, run).remote["artifacts"] if "revisions" in file["path"]]
    assert len(revisions) == 2
    Damage(emulator, run).lose_file(PATH)
    (verdict,) = await verdict_on(sides, run)
    assert [change for _, _, change in told(verdict)] == ["missing"], "the last write"


async def test_of_a_limit_learned_on_the_way_every_point_has_one_place(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    emulator.change_settings(limits=LOWER)
    run = await source.run("a name that is too long", experiment_id=await source.experiment("e" * 80))
    await run.log(params={f"p{n}": "1" for n in range(12)}, tags={f"t{n}": "1" for n in range(12)})
    await run.log(metrics=[*points("many", 90), *points("n" * 21, 1), *points("b", 2)])
    await run.log(metrics=[*points("many", 20, first=90), *points("c", 1), *points("d", 1)])
    await run.log_inputs(2)
    await run.finish()
    await azure_worker.drain()
    damage = Damage(emulator, run)
    filed = {line["step"] for line in lines_of(emulator, damage) if line.get("key") == "many"}
    there = {step for step, _, _ in points_of(damage.remote, "many")}
    assert (filed | there, filed & there) == (set(range(110)), set())
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)


async def test_a_copy_that_vanished_is_replayed_with_its_overflow_file(
    source: Source, emulator: EmulatorProcess, small_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    lost, repaired = await a_run(source), await a_run(source)
    await small_worker.drain()
    for run in (lost, repaired):
        Damage(emulator, run).lose_run()
    await lost.log(metrics=points("b", 1, first=3))
    await small_worker.drain()
    assert (await lost.mirror()).state == "quarantined"
    async with engine.begin() as connection:
        assert await replay(connection, Choice()) == [lost.run_id]
    (verdict,) = await verdict_on(sides, repaired)
    assert await repair(engine, verdict)
    await small_worker.drain()
    for verdict in await verdict_on(sides, lost, repaired):
        assert verdict.outcome is Outcome.EQUAL, told(verdict)


async def test_a_param_that_somebody_else_set_there_is_told_and_ours_is_in_the_file(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await source.run()
    await azure_worker.drain()
    damage = Damage(emulator, run)
    damage.with_value("params", "a", "theirs")
    await run.log(params={"a": "ours", "b": "1"})
    await run.finish()
    await azure_worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert told(verdict) == [("param", "a", "differs")]
    assert not verdict.differences[0].is_repairable
    (line,) = [line for line in lines_of(emulator, damage) if line.get("kind") == "param"]
    assert (line["key"], line["value"]) == ("a", "ours")
    assert "request id" in line["reason"]
    assert "payload sha256:" in line["reason"]


async def test_a_kept_copy_of_a_deleted_run_is_equal_where_it_is_to_be_kept(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    run = await source.run()
    await run.move(LifecycleStage.DELETED)
    keeping = azure_settings.model_copy(update={"mirror_on_delete": "keep"})
    await Worker(keeping, engine, store).drain()

    async def judged(settings: Settings) -> Told:
        (verdict,) = await verify_runs(settings, engine, store, [run.run_id])
        return told(verdict)

    assert await judged(keeping) == []
    assert await judged(azure_settings) == [("stage", "", "differs")]
    Damage(emulator, run).without("tags", "runmirror.lifecycle_stage")
    assert await judged(keeping) == [("stage", "", "differs")]


async def test_nested_runs_are_equal_however_their_parents_change(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, engine: AsyncEngine
) -> None:
    first, second = await source.run("first"), await source.run("second")
    child = await source.run("child", **{PARENT: first.run_id.hex, "mlflow.rootRunId": first.run_id.hex})

    async def equal() -> dict[str, str]:
        await azure_worker.drain()
        (verdict,) = await verify(sides, [child.run_id], at_once=1)
        assert verdict.outcome is Outcome.EQUAL, told(verdict)
        tags: dict[str, str] = Damage(emulator, child).remote["tags"]
        return tags

    assert (await equal())[PARENT] == Damage(emulator, first).remote["run_id"]
    await child.log(tags={PARENT: second.run_id.hex})
    assert (await equal())[PARENT] == Damage(emulator, second).remote["run_id"]
    await child.log(tags={PARENT: "f" * 32})
    assert PARENT not in await equal()
    await child.log(tags={PARENT: first.run_id.hex})
    assert (await equal())[PARENT] == Damage(emulator, first).remote["run_id"]
    Damage(emulator, child).with_value("tags", PARENT, "another")
    (verdict,) = await verdict_on(sides, child)
    assert told(verdict) == [("tag", PARENT, "differs")]
    assert await repair(engine, verdict)
    assert (await equal())[PARENT] == Damage(emulator, first).remote["run_id"]
    await child.delete_tag(PARENT)
    assert not {PARENT, "runmirror.parent_run_id"} & (await equal()).keys()
