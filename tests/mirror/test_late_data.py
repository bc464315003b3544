"""What comes late, again, or out of order at the source arrives in the workspace: all of it, in order, once."""

import pytest

from runmirror.entities import Metric, RunStatus
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.verdicts import Outcome
from runmirror.mirror.worker import Worker
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import Json, files_of, remote_run
from tests.mirror.factories import START_MS, Source, SourceRun, points
from tests.mirror.test_verify import told, verdict_on

END_MS = START_MS + 60_000


def arrived(remote: Json, key: str) -> list[tuple[int, int, float]]:
    """Step, time and value of every point of a metric, in the order in which they came."""
    return [(p["step"], p["timestamp"], float(p["value"])) for p in remote["metrics"] if p["key"] == key]


def written(*metrics: Metric) -> list[tuple[int, int, float]]:
    return [(metric.step, metric.timestamp_ms, metric.value) for metric in metrics]


async def mirrored(emulator: EmulatorProcess, worker: Worker, sides: Sides, run: SourceRun) -> Json:
    """The copy once the run is mirrored, which is equal."""
    await worker.drain()
    (verdict,) = await verdict_on(sides, run)
    assert verdict.outcome is Outcome.EQUAL, told(verdict)
    return remote_run(emulator, run.run_id.hex)


async def an_ended_run(source: Source) -> SourceRun:
    run = await source.run(team="x")
    await run.log(metrics=points("m", 3), params={"p": "1"})
    await run.upload("a.txt", b"first")
    await run.finish()
    return run


async def test_writes_after_a_run_has_ended_arrive_and_do_not_reopen_it(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await an_ended_run(source)
    await mirrored(emulator, azure_worker, sides, run)
    for step in range(3, 6):
        await run.log(metrics=points("m", 1, first=step), tags={"team": f"y{step}"})
    await run.log(metrics=points("new", 2), params={"late": "2"}, tags={"late": "3"})
    await run.upload("a.txt", b"second")
    await run.upload("b.txt", b"late")
    remote = await mirrored(emulator, azure_worker, sides, run)
    assert (remote["status"], remote["end_time"]) == ("FINISHED", END_MS)
    assert arrived(remote, "m") == written(*points("m", 6))
    assert arrived(remote, "new") == written(*points("new", 2))
    assert remote["params"] == {"p": "1", "late": "2"}
    assert (remote["tags"]["team"], remote["tags"]["late"]) == ("y5", "3")
    assert {path: size for path, (size, _) in files_of(remote).items()} == {"a.txt": 6, "b.txt": 4}


async def test_a_run_that_is_reopened_is_reopened_there_and_ends_again(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await an_ended_run(source)
    await mirrored(emulator, azure_worker, sides, run)
    await run.update(RunStatus.RUNNING, name="again")
    await run.log(metrics=points("m", 2, first=3))
    remote = await mirrored(emulator, azure_worker, sides, run)
    assert (remote["status"], remote["run_name"]) == ("RUNNING", "again")
    await run.log(metrics=points("m", 2, first=5))
    await run.update(RunStatus.FAILED, end_time_ms=END_MS - 30_000)
    remote = await mirrored(emulator, azure_worker, sides, run)
    assert (remote["status"], remote["end_time"]) == ("FAILED", END_MS - 30_000), "earlier than it ended before"
    assert arrived(remote, "m") == written(*points("m", 7))
    for status in (RunStatus.RUNNING, RunStatus.KILLED, RunStatus.RUNNING, RunStatus.FINISHED):
        await run.update(status, end_time_ms=None if status is RunStatus.RUNNING else END_MS)
    remote = await mirrored(emulator, azure_worker, sides, run)
    assert (remote["status"], remote["end_time"]) == ("FINISHED", END_MS), "the last of them counts"


async def test_timestamps_and_steps_that_run_backwards_arrive_in_the_order_they_were_written(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    run = await source.run()
    back = [Metric("m", float(n), START_MS - n * 3_600_000, 50 - n) for n in range(40)]
    before_1970 = [Metric("m", 0.5, -1, -7), Metric("m", 0.25, 0, 0)]
    for metric in back[:20]:
        await run.log(metrics=[metric])
    await mirrored(emulator, azure_worker, sides, run)
    for metric in [*back[20:], *before_1970]:
        await run.log(metrics=[metric])
    remote = await mirrored(emulator, azure_worker, sides, run)
    assert arrived(remote, "m") == written(*back, *before_1970)


@pytest.mark.parametrize("lost", [None, "runs/log-batch"], ids=["", "an answer is lost"])
async def test_a_point_that_is_repeated_arrives_once(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides, lost: str | None
) -> None:
    """A point is its metric, step, time and value: where one of them differs it is another."""
    run = await source.run()
    twice = points("m", 250)
    near = [Metric("m", 0.0, START_MS, 1), Metric("m", 0.0, START_MS + 1, 0), Metric("m", 1.0, START_MS, 0)]
    await run.log(metrics=[*twice, *twice])
    await run.log(metrics=twice)
    if lost is not None:
        emulator.add_fault("reset_after", {"path": lost}, times=1, skip=1)
    await mirrored(emulator, azure_worker, sides, run)
    await run.log(metrics=[*near, *twice, *near])
    await run.finish()
    await run.log(metrics=[*twice, *near])
    if lost is not None:
        emulator.add_fault("reset_after", {"path": lost}, times=1)
    remote = await mirrored(emulator, azure_worker, sides, run)
    found = arrived(remote, "m")
    assert found[:250] == written(*twice)
    assert sorted(found[250:]) == sorted(written(*near))
    assert all(fault["hits"] for fault in emulator.faults())


async def test_late_data_of_many_runs_arrives_while_the_workspace_comes_and_goes(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, sides: Sides
) -> None:
    runs = [await an_ended_run(source) for _ in range(4)]
    await azure_worker.drain()
    emulator.add_fault("status", {"path": "log-batch"}, status=503, times=2)
    emulator.add_fault("reset_after", {"path": "log-batch"}, times=2, skip=2)
    for step in range(3, 8):
        for run in runs:
            await run.log(metrics=[*points("m", 1, first=step), Metric("back", 1.0, START_MS - step, -step)])
    for run in runs:
        remote = await mirrored(emulator, azure_worker, sides, run)
        assert arrived(remote, "m") == written(*points("m", 8))
        assert [step for step, _, _ in arrived(remote, "back")] == [-3, -4, -5, -6, -7]
        assert remote["status"] == "FINISHED"
