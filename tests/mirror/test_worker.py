"""One worker and a target in memory: everything arrives, once, in order, and nothing stands in another run's way."""

import asyncio
import math
from datetime import timedelta

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runmirror.artifacts import pending_queries
from runmirror.artifacts.files import Store
from runmirror.artifacts.places import Place, Root
from runmirror.entities import LifecycleStage, Metric, RunStatus
from runmirror.experiments import service as experiments
from runmirror.mirror.queue import PORTAL_TAG, REMOTE_RUN_TAG, STATUS_TAG
from runmirror.mirror.target import TargetRejected, TargetThrottled, TargetUnauthorized, TargetUnavailable
from runmirror.mirror.worker import Worker
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import START_MS, Source, chunks, points
from tests.mirror.memory_target import Failure, MemoryTarget

PARENT = "mlflow.parentRunId"


async def test_a_run_is_mirrored_whole(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run("first", team="x")
    await run.log(metrics=[*points("loss", 5), Metric("acc", math.nan, START_MS, 3)], params={"lr": "0.1"})
    await run.upload("plots/a.txt", b"hello")
    await run.finish()
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert [metric for metric in remote.metrics if metric.key == "loss"] == points("loss", 5)
    assert [(m.step, math.isnan(m.value)) for m in remote.metrics if m.key == "acc"] == [(3, True)]
    assert remote.params == {"lr": "0.1"}
    assert remote.tags == {
        "runmirror.run_id": run.run_id.hex, "runmirror.source": "runmirror", "team": "x", "mlflow.runName": "first",
    }  # fmt: skip
    assert remote.files == {"plots/a.txt": b"hello"}
    assert (remote.name, remote.status, remote.end_time_ms) == ("first", RunStatus.FINISHED, START_MS + 60_000)
    mirror = await run.mirror()
    assert (mirror.state, mirror.watermark, mirror.behind_since) == ("current", mirror.seq, None)


async def test_the_source_run_shows_where_it_stands(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run()
    await worker.drain()
    remote_id = target.of(run.run_id.hex).run_id
    shown = {
        STATUS_TAG: "mirrored", REMOTE_RUN_TAG: remote_id, PORTAL_TAG: f"https://portal.example/runs/{remote_id}",
    }  # fmt: skip
    assert {key: value for key, value in (await run.tags()).items() if key.startswith("runmirror.")} == shown
    before = await run.mirror()
    await worker.drain()
    assert (await run.mirror()).seq == before.seq, "tags of the mirror start no new round"
    await run.log(params={"a": "1"})
    assert (await run.tags())[STATUS_TAG] == "pending"
    await worker.drain()
    assert (await run.tags())[STATUS_TAG] == "mirrored"


async def test_the_state_is_sent_after_all_data(source: Source, target: MemoryTarget, make_worker: MakeWorker) -> None:
    run = await source.run()
    await run.finish()
    for step in range(30):
        await run.log(metrics=points(f"m{step}", 100))
    await make_worker(target, mirror_page_rows=2000).drain()
    assert len(target.of(run.run_id.hex).metrics) == 3000
    assert target.calls.count("update_run") == 1
    assert target.calls[-1] == "update_run"


async def test_changes_after_the_end_arrive(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run("old name", a="1", b="2")
    await run.finish()
    await worker.drain()
    await run.update(RunStatus.RUNNING, name="new name")
    await run.log(metrics=points("late", 2), tags={"a": "3"})
    await run.delete_tag("b")
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert (remote.name, remote.status) == ("new name", RunStatus.RUNNING)
    assert (remote.tags["a"], "b" in remote.tags, remote.metrics) == ("3", False, points("late", 2))


async def test_a_deleted_run_is_deleted_and_a_restored_one_takes_data_again(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 1))
    await worker.drain()
    await run.move(LifecycleStage.DELETED)
    await worker.drain()
    assert target.of(run.run_id.hex).stage is LifecycleStage.DELETED
    await run.move(LifecycleStage.ACTIVE)
    await run.log(metrics=points("m", 1, first=1))
    await run.log(params={"p": "1"})
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert (remote.stage, remote.metrics, remote.params) == (LifecycleStage.ACTIVE, points("m", 2), {"p": "1"})
    await run.log(metrics=points("m", 1, first=2))
    await run.move(LifecycleStage.DELETED)
    await worker.drain()
    assert (remote.stage, remote.metrics) == (LifecycleStage.DELETED, points("m", 3))
    assert (await run.mirror()).state == "current"


async def test_users_cannot_speak_in_the_mirrors_name(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run()
    await run.log(tags={"runmirror.run_id": "forged", STATUS_TAG: "mine", "mlflow.parentRunId": "0" * 32})
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert remote.tags["runmirror.parent_run_id"] == "0" * 32
    assert not {STATUS_TAG, "mlflow.parentRunId"} & remote.tags.keys()
    assert (await run.tags())[STATUS_TAG] == "mirrored"


async def test_logged_models_are_folders_of_the_run(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run()
    first, second = await run.log_model("model"), await run.log_model("model")
    await run.upload("MLmodel", b"one", model_id=first)
    await run.upload("MLmodel", b"two", model_id=second)
    await worker.drain()
    assert target.of(run.run_id.hex).files == {"model/MLmodel": b"one", f"runmirror/models/{second}/MLmodel": b"two"}


async def test_files_of_a_run_and_of_its_models_never_share_a_place(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    """Whoever came first has the folder, and keeps it whatever is mirrored in which order."""
    run = await source.run()
    await run.upload("early/x", b"of the run")
    late, taken = await run.log_model("model"), await run.log_model("early")
    own = await run.log_model("runmirror")
    await run.upload("model/x", b"of the run, later")
    await run.upload(f"runmirror/models/{taken}/x", b"a name of ours")
    await worker.drain()
    for model_id in (late, taken, own):
        await run.upload("x", model_id[:6].encode(), model_id=model_id)
    await worker.drain()
    await run.upload("early/x", b"of the run, again")
    await run.upload("model/x", b"of the run, again")
    await worker.drain()
    assert target.of(run.run_id.hex).files == {
        "early/x": b"of the run, again",
        "runmirror/run/model/x": b"of the run, again",
        f"runmirror/run/runmirror/models/{taken}/x": b"a name of ours",
        "model/x": late[:6].encode(),
        f"runmirror/models/{taken}/x": taken[:6].encode(),
        f"runmirror/models/{own}/x": own[:6].encode(),
    }


async def test_a_lost_answer_makes_no_second_run(source: Source, target: MemoryTarget, worker: Worker) -> None:
    run = await source.run()
    target.failures.append(Failure("create_run", TargetUnavailable("reset", uncertain=True), after=True))
    await worker.drain()
    target.of(run.run_id.hex)


@pytest.mark.parametrize("after", [False, True])
async def test_after_a_lost_answer_only_missing_points_are_sent(
    source: Source, target: MemoryTarget, worker: Worker, after: bool
) -> None:
    run = await source.run()
    odd = [Metric("odd", value, START_MS, 1) for value in (math.nan, -0.0, 1e308, 5e-324)]
    await run.log(metrics=points("m", 500) + odd)
    failure = Failure("log_batch", TargetUnavailable("reset", uncertain=True), after=after)
    target.failures.append(failure)
    await worker.drain()
    assert failure.times == 0
    sent = target.of(run.run_id.hex).metrics
    assert sorted(m.step for m in sent if m.key == "m") == list(range(500))
    assert sorted(repr(m.value) for m in sent if m.key == "odd") == sorted(repr(m.value) for m in odd)


async def test_a_workspace_linked_again_gets_no_point_twice(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 10))
    await worker.drain()
    async with engine.begin() as connection:  # as if another workspace had been linked in between
        await connection.execute(
            text("UPDATE mirrors SET state = 'due', watermark = 0, info_watermark = 0, sent_upto = 0, "
                 "remote_run_id = NULL, remote_experiment_id = NULL")
        )  # fmt: skip
    await worker.drain()
    assert target.of(run.run_id.hex).metrics == points("m", 10)


async def test_a_poisoned_run_is_set_aside_and_the_others_flow(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    poison, healthy = await source.run("poison"), await source.run("healthy")
    refusal = Failure("log_batch", TargetRejected("not this run"), times=99, run_id=poison.run_id.hex)
    target.failures.append(refusal)
    for run in (poison, healthy):
        await run.log(metrics=points("m", 3))
    await worker.drain()
    mirror = await poison.mirror()
    assert (mirror.state, mirror.last_error) == ("quarantined", "not this run")
    assert (await poison.tags())[STATUS_TAG] == "quarantined"
    assert target.of(healthy.run_id.hex).metrics == points("m", 3)
    assert (await healthy.mirror()).state == "current"


@pytest.mark.parametrize(
    "error",
    [
        TargetThrottled("slow down", retry_after_s=0.05),
        TargetUnavailable("503"),
        TargetUnauthorized("403"),
    ],
)
async def test_an_outage_costs_no_run_an_attempt(
    source: Source, target: MemoryTarget, worker: Worker, error: Exception
) -> None:
    runs = [await source.run(f"run {n}") for n in range(6)]
    for run in runs:
        await run.log(metrics=points("m", 3))
    target.failures.append(Failure("log_batch", error, times=7))
    await worker.drain()
    for run in runs:
        mirror = await run.mirror()
        assert (mirror.state, mirror.attempt) == ("current", 0)
        target.of(run.run_id.hex)


async def test_a_run_that_alone_makes_the_workspace_fail_does_not_stop_the_others(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    cursed = await source.run("cursed")
    await cursed.log(metrics=points("m", 3))
    others = [await source.run(f"run {n}") for n in range(8)]
    target.failures.append(Failure("log_batch", TargetUnavailable("500"), times=-1, run_id=cursed.run_id.hex))
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while {(await run.mirror()).state for run in others} != {"current"}:
            await asyncio.sleep(0.02)
    await worker.stop()
    await running
    assert (await cursed.mirror()).state == "due"


async def test_a_file_that_vanished_is_given_up_after_some_attempts(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    run = await source.run()
    await run.upload("a.txt", b"hello")
    await source.store.delete(f"0/{run.run_id.hex}/artifacts/a.txt")
    await worker.drain()
    mirror = await run.mirror()
    assert mirror.state == "quarantined"
    assert "'a.txt'" in mirror.last_error


async def test_a_file_that_is_deleted_while_it_is_copied_is_no_error(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    await run.upload("a.txt", b"hello")
    deleted: list[asyncio.Task[None]] = []
    copy_files = target.copy_files

    async def delete_first(*arguments: object) -> object:
        if not deleted:
            deleted.append(asyncio.create_task(run.delete_file("a.txt")))
            await deleted[0]
        return await copy_files(*arguments)  # type: ignore[arg-type]

    target.copy_files = delete_first  # type: ignore[assignment, method-assign]
    await worker.drain()
    assert (await run.mirror()).state == "current"
    assert target.of(run.run_id.hex).files == {}


async def test_without_a_link_nothing_is_tried(source: Source, make_worker: MakeWorker) -> None:
    run = await source.run()
    target = MemoryTarget()
    await make_worker(target).drain()
    assert (target.calls, (await run.mirror()).state) == ([], "due")


async def test_a_write_wakes_the_worker_and_stopping_gives_leases_back(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    worker = make_worker(target, mirror_poll=timedelta(hours=1))
    running = asyncio.create_task(worker.run())
    for round_ in range(3):
        run = await source.run(f"round {round_}")
        async with asyncio.timeout(10):
            while (await run.mirror()).state != "current":
                await asyncio.sleep(0.02)
    await worker.stop()
    async with asyncio.timeout(10):
        await running


async def test_a_file_that_a_client_put_into_the_store_by_itself_is_found_and_mirrored(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine, store: Store
) -> None:
    run = await source.run()
    root = f"{run.experiment_id}/{run.run_id.hex}/artifacts"
    async with engine.begin() as connection:
        place = Place(Root(run.run_id, "", root), "by/url")
        await pending_queries.add(connection, place, timedelta(minutes=15))
        await connection.execute(text("UPDATE pending_uploads SET check_at = now()"))
    await store.write(f"{root}/by/url", chunks(b"hello"))
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(20):
        while not any(remote.files == {"by/url": b"hello"} for remote in target.runs.values()):
            await asyncio.sleep(0.02)
    await worker.stop()
    await running


async def test_postgres_may_go_away_and_come_back(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine, postgres: str, database_url: str
) -> None:
    runs = [await source.run(f"run {n}") for n in range(4)]
    for run in runs:
        await run.log(metrics=points("m", 900))
    name = make_url(database_url).database
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    struck = asyncio.Event()
    target.before = lambda method: struck.set() if method == "log_batch" else None
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30), admin.connect() as connection:
        await struck.wait()
        await connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        kill = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        await connection.execute(kill, {"name": name})
        await asyncio.sleep(0.5)  # long enough for attempts that fail
        assert not running.done()
        await connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        await engine.dispose()
        while {(await run.mirror()).state for run in runs} != {"current"}:
            await asyncio.sleep(0.05)
    await worker.stop()
    await running
    await admin.dispose()
    for run in runs:
        assert sorted(m.step for m in target.of(run.run_id.hex).metrics) == list(range(900))


async def test_a_parent_is_mirrored_before_its_child_and_known_to_it(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine
) -> None:
    parent = await source.run("parent")
    child = await source.run("child", **{PARENT: parent.run_id.hex})
    grandchild = await source.run("grandchild", **{PARENT: child.run_id.hex})
    async with engine.begin() as connection:  # the youngest is asked for first
        await connection.execute(
            text("UPDATE mirrors SET due_at = due_at - interval '1 minute' WHERE run_id <> :parent_id"),
            {"parent_id": parent.run_id},
        )
    await make_worker(target, mirror_concurrency=1).drain()
    remote = [target.of(run.run_id.hex) for run in (parent, child, grandchild)]
    assert [run.tags.get(PARENT) for run in remote] == [None, remote[0].run_id, remote[1].run_id]
    await child.log(tags={PARENT: parent.run_id.hex, "mlflow.rootRunId": parent.run_id.hex})
    await make_worker(target).drain()
    assert remote[1].tags[PARENT] == remote[0].run_id
    assert (remote[1].tags["runmirror.root_run_id"], "mlflow.rootRunId" in remote[1].tags) == (parent.run_id.hex, False)


async def test_unknown_parents_and_circles_hold_nobody_up(source: Source, target: MemoryTarget, worker: Worker) -> None:
    first, second, own = [await source.run(name) for name in ("first", "second", "own")]
    await first.log(tags={PARENT: second.run_id.hex})
    await second.log(tags={PARENT: first.run_id.hex})
    await own.log(tags={PARENT: own.run_id.hex})
    below = await source.run("below", **{PARENT: first.run_id.hex})
    odd = [await source.run("odd", **{PARENT: value}) for value in ("f" * 32, "not an id", "")]
    await worker.drain(timeout_s=20)
    for run in (first, second, own, *odd):
        remote = target.of(run.run_id.hex)
        assert remote.tags["runmirror.parent_run_id"] == (await run.tags())[PARENT]
        assert PARENT not in remote.tags
    assert target.of(below.run_id.hex).tags[PARENT] == target.of(first.run_id.hex).run_id


async def test_a_parent_may_change_between_its_two_names_where_no_other_tag_has_room(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    """An id that means nothing in the workspace stands there under a name of ours, one that does under MLflow's."""
    other, run = await source.run("other"), await source.run("run")
    await run.log(tags={PARENT: run.run_id.hex} | {f"t{number}": "v" for number in range(9)})
    worker = make_worker(target, mirror_limit_tags=12)
    await worker.drain()
    tags = target.of(run.run_id.hex).tags
    assert (tags["runmirror.parent_run_id"], PARENT in tags) == (run.run_id.hex, False)
    await run.log(tags={PARENT: other.run_id.hex})
    await worker.drain()
    assert (tags.get(PARENT), "runmirror.parent_run_id" in tags) == (target.of(other.run_id.hex).run_id, False)
    await run.log(tags={PARENT: run.run_id.hex})
    await worker.drain()
    assert (tags["runmirror.parent_run_id"], PARENT in tags) == (run.run_id.hex, False)


async def test_a_parent_that_was_set_aside_holds_nobody_up(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    target.failures.append(Failure("create_run", TargetRejected("not this one"), times=2))
    parent = await source.run("parent")
    await worker.drain()
    child = await source.run("child", **{PARENT: parent.run_id.hex})
    await worker.drain()
    assert (await parent.mirror()).state == "quarantined"
    assert target.of(child.run_id.hex).tags["runmirror.parent_run_id"] == parent.run_id.hex


async def test_late_and_disordered_data_arrives_in_order_once(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 3))
    await run.finish()
    await worker.drain()
    back = [Metric("m", float(n), START_MS - n, 5 - n) for n in range(5)]  # time and step run backwards
    for metric in back:
        await run.log(metrics=[metric, metric])
    await run.log(metrics=[*points("m", 3), back[0]])  # known already, all of them
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert remote.metrics == points("m", 3) + back
    assert remote.status is RunStatus.FINISHED, "late data does not reopen a run"
    await run.update(RunStatus.RUNNING)
    await run.log(metrics=points("m", 1, first=7))
    await run.update(RunStatus.FAILED, end_time_ms=START_MS + 90_000)
    await worker.drain()
    assert (remote.metrics[-1:], remote.status) == (points("m", 1, first=7), RunStatus.FAILED)
    assert remote.end_time_ms == START_MS + 90_000


async def test_the_copy_of_a_deleted_run_may_be_kept(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    worker = make_worker(target, mirror_on_delete="keep")
    run = await source.run()
    await run.log(metrics=points("m", 1))
    await run.move(LifecycleStage.DELETED)
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert (remote.stage, remote.tags["runmirror.lifecycle_stage"]) == (LifecycleStage.ACTIVE, "deleted")
    await run.move(LifecycleStage.ACTIVE)
    await worker.drain()
    assert (remote.stage, "runmirror.lifecycle_stage" in remote.tags) == (LifecycleStage.ACTIVE, False)


@pytest.mark.parametrize("policy", ["delete", "archive"])
async def test_runs_of_a_deleted_experiment_are_deleted_or_archived_and_come_back_with_it(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine, policy: str
) -> None:
    worker = make_worker(target, mirror_on_delete=policy)
    experiment_id = await source.experiment("goes and comes")
    runs = [await source.run(experiment_id=experiment_id) for _ in range(2)]
    await worker.drain()
    for stage in (LifecycleStage.DELETED, LifecycleStage.ACTIVE):
        async with engine.begin() as connection:
            await experiments.move(connection, experiment_id, to=stage)
        await worker.drain()
        is_gone = stage is LifecycleStage.DELETED
        remote = {(target.of(run.run_id.hex).stage, target.of(run.run_id.hex).hidden) for run in runs}
        assert remote == {(stage, False) if policy == "delete" else (LifecycleStage.ACTIVE, is_gone)}


async def test_a_run_that_is_archived_before_it_was_mirrored_is_hidden_all_the_same(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    worker = make_worker(target, mirror_on_delete="archive")
    run, other = await source.run(), await source.run()
    await run.move(LifecycleStage.DELETED)
    await worker.drain()
    assert [target.of(one.run_id.hex).hidden for one in (run, other)] == [True, False]
    await run.move(LifecycleStage.ACTIVE)
    await run.log(metrics=points("m", 3))
    await worker.drain()
    assert (target.of(run.run_id.hex).hidden, target.of(run.run_id.hex).metrics) == (False, points("m", 3))
