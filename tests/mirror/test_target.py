"""What the worker relies on, of any target: the one in memory and Azure ML's pass the same suite."""

import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from runmirror.entities import Batch, LifecycleStage, Metric, Param, RunStatus, Tag
from runmirror.mirror.link import Link, open_target
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.target import (
    NewRun,
    RemoteFile,
    RemoteRun,
    RemoteRunVanished,
    RunState,
    SourceChanged,
    Target,
    TargetRejected,
)
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.factories import START_MS, chunks, points
from tests.mirror.memory_target import MemoryTarget

RUN_ID = "0" * 31 + "1"


@pytest.fixture(params=["memory", "azureml"])
async def any_target(request: pytest.FixtureRequest, azure_settings: Settings) -> AsyncIterator[Target]:
    if request.param == "memory":
        yield MemoryTarget()
        return
    emulator: EmulatorProcess = request.getfixturevalue("emulator")
    target, _ = await open_target(azure_settings, Link(emulator.workspace_id))
    yield target
    await target.close()


async def create(target: Target, run_id: str = RUN_ID) -> RemoteRun:
    experiment_id = await target.ensure_experiment("suite")
    return await target.create_run(experiment_id, NewRun(run_id, "name", "ada", START_MS, "here"))


def file(path: str, content: bytes, *, says: bytes | None = None) -> RemoteFile:
    """A file; `says` is what its row was made of, when that is something else."""

    async def read(start: int, end: int) -> AsyncIterator[bytes]:
        if len(content) != len(said):
            raise SourceChanged(path)
        return chunks(content[start:end])

    said = content if says is None else says
    return RemoteFile(path, f"runmirror/revisions/1/{path}", len(said), hashlib.md5(said).hexdigest(), read)


async def test_an_experiment_is_made_once(any_target: Target) -> None:
    first = await any_target.ensure_experiment("one")
    assert await any_target.ensure_experiment("one") == first
    assert await any_target.ensure_experiment("two") != first


async def test_a_run_is_found_by_our_id_even_when_deleted(any_target: Target) -> None:
    experiment_id = await any_target.ensure_experiment("suite")
    assert await any_target.find_run(experiment_id, RUN_ID) is None
    made = await create(any_target)
    await create(any_target, "2" * 32)
    assert await any_target.find_run(experiment_id, RUN_ID) == made
    await any_target.set_stage(made, LifecycleStage.DELETED)
    assert await any_target.find_run(experiment_id, RUN_ID) == made
    assert await any_target.stage_of(made) is LifecycleStage.DELETED
    await any_target.set_stage(made, LifecycleStage.ACTIVE)
    assert await any_target.stage_of(made) is LifecycleStage.ACTIVE


async def test_every_point_is_kept_with_step_and_time(any_target: Target) -> None:
    run = await create(any_target)
    odd = [Metric("odd", value, START_MS + n, -n) for n, value in enumerate((math.nan, 1e308, 5e-324, -0.1, 1 / 3))]
    await any_target.log_batch(run, Batch(metrics=(*points("m", 150), *odd)))
    await any_target.log_batch(run, Batch(metrics=tuple(points("m", 50, first=150))))
    assert sorted(await any_target.history(run, "m"), key=lambda m: m.step) == points("m", 200)
    assert sorted(map(repr, await any_target.history(run, "odd"))) == sorted(map(repr, odd))
    assert list(await any_target.history(run, "absent")) == []


async def test_params_and_tags_may_be_sent_again_and_tags_deleted_again(any_target: Target) -> None:
    run = await create(any_target)
    for _ in range(2):
        await any_target.log_batch(run, Batch(params=(Param("p", "ü"),), tags=(Tag("t", "1"), Tag("u", ""))))
    for _ in range(2):
        await any_target.delete_tag(run, "t")
    with pytest.raises(TargetRejected):
        await any_target.log_batch(run, Batch(params=(Param("p", "other"),)))


async def test_a_batch_over_the_limit_is_refused_whole(any_target: Target) -> None:
    run = await create(any_target)
    for part in range(2):
        await any_target.log_batch(run, Batch(params=tuple(Param(f"{part}-{n}", "1") for n in range(100))))
    with pytest.raises(TargetRejected, match="Limit=200"):
        await any_target.log_batch(run, Batch(metrics=tuple(points("m", 1)), params=(Param("one too many", "1"),)))
    assert list(await any_target.history(run, "m")) == []


async def test_the_state_is_set_and_a_deleted_run_refuses(any_target: Target) -> None:
    run = await create(any_target)
    done = RunState("new name", RunStatus.FINISHED, START_MS + 1, LifecycleStage.ACTIVE)
    for _ in range(2):
        assert await any_target.update_run(run, done) is LifecycleStage.ACTIVE
    running = RunState("new name", RunStatus.RUNNING, None, LifecycleStage.ACTIVE)
    assert await any_target.update_run(run, running) is LifecycleStage.ACTIVE
    for _ in range(2):
        await any_target.set_stage(run, LifecycleStage.DELETED)
    with pytest.raises(TargetRejected):
        await any_target.log_batch(run, Batch(tags=(Tag("t", "1"),)))


async def test_files_are_copied_once_and_what_changed_is_told(any_target: Target) -> None:
    run = await create(any_target)
    good, empty = file("a/b.txt", b"hello"), file("empty", b"")
    gone, other = file("gone", b"", says=b"x"), file("other", b"other", says=b"says!")
    copied = await any_target.copy_files(run, [good, gone, empty, other])
    assert (copied.sent_bytes, {changed.path for changed in copied.changed}) == (5, {"gone", "other"})
    assert (await any_target.copy_files(run, [good, empty])).changed == ()
    assert (await any_target.copy_files(run, [])).sent_bytes == 0


async def test_a_run_that_is_not_there_has_vanished(any_target: Target) -> None:
    run = await create(any_target)
    ghost = RemoteRun(run.experiment_id, "ghost")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: any_target.log_batch(ghost, Batch(tags=(Tag("t", "1"),))),
        lambda: any_target.history(ghost, "m"),
        lambda: any_target.stage_of(ghost),
        lambda: any_target.set_stage(ghost, LifecycleStage.DELETED),
    ]
    for call in calls:
        with pytest.raises(RemoteRunVanished):
            await call()


async def test_without_the_guards_leave_nothing_is_asked(any_target: Target) -> None:
    def refuse() -> None:
        raise LeaseLost("too late")

    run = await create(any_target)
    guarded = any_target.under(refuse)
    with pytest.raises(LeaseLost):
        await guarded.log_batch(run, Batch(metrics=tuple(points("m", 1))))
    with pytest.raises(LeaseLost):
        await guarded.copy_files(run, [file("a", b"a")])
    assert list(await any_target.history(run, "m")) == []


async def test_a_probe_of_a_healthy_target_says_nothing(any_target: Target) -> None:
    await any_target.probe()
