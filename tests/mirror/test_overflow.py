"""What does not fit natively stands in the overflow file, whole, and everything else goes through."""

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import Metric, Param, Tag
from runmirror.mirror.overflow import PATH
from runmirror.mirror.target import TargetUnavailable
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import points_of, remote_run
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import START_MS, Source, SourceRun, points
from tests.mirror.memory_target import Failure, MemoryTarget, Remote

SMALL = {"mirror_limit_params": 3, "mirror_limit_metrics": 2, "mirror_limit_tags": 10, "mirror_limit_points": 10}


def lines_of(remote: Remote) -> list[dict[str, object]]:
    return [json.loads(line) for line in remote.files[PATH].decode().splitlines()]


def overflowing(remote: Remote, kind: str) -> dict[object, object]:
    return {line["key"]: line["value"] for line in lines_of(remote) if line["kind"] == kind}


def steps(remote: Remote, key: str) -> tuple[list[object], list[object]]:
    """Of a metric: natively, and in the file."""
    native = [metric.step for metric in remote.metrics if metric.key == key]
    lines = [line["step"] for line in lines_of(remote) if line["kind"] == "metric" and line["key"] == key]
    return sorted(native), lines


async def counts(run: SourceRun) -> dict[str, int]:
    async with run.engine.connect() as connection:
        rows = await connection.execute(
            text(
                "SELECT kind, count(*) FROM mirror_overflows WHERE run_id = :run_id AND kind !~ '_since' GROUP BY kind"
            ),
            {"run_id": run.run_id},
        )
        return dict(tuple(row) for row in rows)


async def test_what_came_first_stands_in_the_run_and_the_rest_in_the_file(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()
    worker = make_worker(target, **SMALL)
    await run.log(params={"z": "1", "long": "x" * 501}, metrics=points("z", 3))
    await worker.drain()
    await run.log(params={"b": "2", "a": "3", "c": "4"}, metrics=[*points("a", 2), *points("b", 2)])
    odd = [Metric("b", value, START_MS, 9) for value in (math.nan, math.inf, -math.inf)]
    await run.log(params={"d": "5"}, metrics=[*points("b", 2, first=2), *odd])
    await run.log(metrics=points("z", 8, first=3))
    await run.log(metrics=points("z", 1, first=11))
    await run.finish()
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert remote.params == {"z": "1", "a": "3", "b": "2"}
    assert overflowing(remote, "param") == {"long": "x" * 501, "c": "4", "d": "5"}
    assert steps(remote, "z") == ([0, 1, 2], list(range(3, 12))), "the write that does not fit goes whole"
    assert steps(remote, "a") == ([0, 1], [])
    assert steps(remote, "b") == ([], [0, 9, 9, 9, 1, 2, 3]), "by time, as a history is read"
    told = [line["value"] for line in lines_of(remote) if line["kind"] == "metric" and line["key"] == "b"]
    assert told[1:4] == ["-Infinity", "Infinity", "NaN"]
    assert remote.tags["runmirror.overflow"] == PATH
    assert (await run.tags())["runmirror.status"] == "partial"
    assert (await counts(run)) == {"param": 3, "metric": 1, "points": 1}
    assert lines_of(remote)[0] == {"kind": "overflow", "run_id": run.run_id.hex, "upto": (await run.mirror()).seq}


async def test_a_tag_keeps_its_place_while_it_fits_and_gets_one_when_there_is_room(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()  # which has mlflow.runName
    worker = make_worker(target, **SMALL)
    await run.log(tags={f"t{n}": "1" for n in range(6)} | {"mlflow.note.content": "n", "long": "x" * 1001})
    await run.finish()
    await worker.drain()
    remote = target.of(run.run_id.hex)
    own = {"runmirror.run_id", "runmirror.source", "runmirror.overflow"}
    first = remote.tags.keys() - own
    assert {"mlflow.runName", "mlflow.note.content"} <= first
    assert overflowing(remote, "tag") == {f"t{n}": "1" for n in range(6) if f"t{n}" not in first} | {"long": "x" * 1001}
    native = min(key for key in first if key.startswith("t"))
    await run.log(tags={"new": "2", native: "3"})
    await worker.drain()
    assert remote.tags[native] == "3", "the new one does not take its place"
    assert overflowing(remote, "tag")["new"] == "2"
    await run.log(tags={native: "y" * 1001})
    await worker.drain()
    assert native not in remote.tags, "no value stays that is not true any more"
    assert overflowing(remote, "tag")[native] == "y" * 1001
    await run.log(tags={"new": "4"})
    await worker.drain()
    assert (remote.tags["new"], "new" in overflowing(remote, "tag")) == ("4", False)
    for key in [*overflowing(remote, "tag")]:
        await run.delete_tag(str(key))
    await worker.drain()
    assert (len(lines_of(remote)), "runmirror.overflow" in remote.tags) == (1, False)
    assert (await run.tags())["runmirror.status"] == "mirrored"


async def test_a_name_that_is_too_long_is_cut_in_the_run_and_whole_in_the_file(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run("🙂" * 10)
    worker = make_worker(target, mirror_limit_run_name=9)
    await worker.drain()
    remote = target.of(run.run_id.hex)
    assert (remote.name, lines_of(remote)[1]) == ("🙂" * 4, {"kind": "run_name", "value": "🙂" * 10})
    await run.update(name="short")
    await run.finish()
    await worker.drain()
    assert (remote.name, remote.tags["mlflow.runName"], len(lines_of(remote))) == ("short", "short", 1)


@pytest.mark.parametrize(
    "refuses",
    [
        lambda thing: isinstance(thing, Metric) and math.isnan(thing.value),
        lambda thing: isinstance(thing, Param) and thing.key == "p7",
        lambda thing: isinstance(thing, Tag) and "ü" in thing.value,
        lambda thing: isinstance(thing, Metric) and thing.key == "b",
    ],
    ids=["nan", "param", "tag", "metric"],
)
async def test_of_what_the_target_refuses_only_that_goes_to_the_file(
    source: Source, target: MemoryTarget, worker: Worker, refuses: Callable[[object], bool]
) -> None:
    target.refuses = refuses
    run = await source.run()
    odd = Metric("a", math.nan, START_MS, 200)
    await run.log(metrics=[*points("a", 200), odd, *points("b", 20)], params={f"p{n}": "1" for n in range(20)})
    await run.log(tags={"t": "ü", "u": "u"})
    await run.finish()
    await worker.drain()
    remote = target.of(run.run_id.hex)
    native: list[object] = [*remote.metrics]
    native += [Param(*pair) for pair in remote.params.items()] + [Tag(*pair) for pair in remote.tags.items()]
    assert not any(refuses(thing) for thing in native)
    assert remote.params | overflowing(remote, "param") == {f"p{n}": "1" for n in range(20)}
    assert (remote.tags | overflowing(remote, "tag")).items() >= {"t": "ü", "u": "u"}.items()
    for key, number in (("a", 201), ("b", 20)):
        here, there = steps(remote, key)
        assert here + there == list(range(number)), "each once"
    assert len(await counts(run)) == 1
    assert (await run.tags())["runmirror.status"] == "partial"


async def test_a_limit_learned_in_the_middle_of_a_page_repeats_no_point_though_reads_lag(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    emulator.change_settings(read_lag_seconds=2, limits={"metric_names_per_run": 2})
    run = await source.run()
    await run.log(metrics=[*points("a", 2), *points("b", 2), *points("c", 2)])
    settle = {"mirror_settle": timedelta(seconds=2.5), "mirror_metrics_per_request": 2}
    await Worker(azure_settings.model_copy(update=settle), engine, store).drain()
    remote = remote_run(emulator, run.run_id.hex)
    assert [len(points_of(remote, key)) for key in "abc"] == [2, 2, 0]


async def test_of_a_write_with_a_refused_point_no_point_stands_in_both_places(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    """Those before it are in the run when it is refused, in a request of their own; it and those after it are not."""
    run = await source.run()
    nan = [Metric("m", math.nan, START_MS + step, step) for step in (10, 11)]
    await run.log(metrics=[*points("m", 6), *nan, *points("n", 2)])
    await run.log(metrics=points("m", 2, first=20))
    target.refuses = lambda thing: isinstance(thing, Metric) and thing.key == "m" and thing.step == 3
    await make_worker(target, mirror_metrics_per_request=2).drain()
    remote = target.of(run.run_id.hex)
    assert steps(remote, "m") == ([0, 1, 2], [3, 4, 5, 10, 11, 20, 21])
    assert steps(remote, "n") == ([0, 1], [])
    assert (await run.tags())["runmirror.status"] == "partial"


async def test_of_a_write_with_a_refused_nan_only_the_nan_after_it_go_to_the_file(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()
    await run.log(metrics=[Metric("m", math.nan if step % 2 else 1.0, START_MS + step, step) for step in range(8)])
    target.refuses = lambda thing: isinstance(thing, Metric) and math.isnan(thing.value) and thing.step == 3
    await make_worker(target, mirror_metrics_per_request=1).drain()
    assert steps(target.of(run.run_id.hex), "m") == ([0, 1, 2, 4, 6], [3, 5, 7])


async def test_a_run_whose_every_request_is_refused_is_set_aside(
    source: Source, target: MemoryTarget, worker: Worker
) -> None:
    target.refuses = lambda _: True
    run = await source.run()
    await run.log(params={f"p{n}": "1" for n in range(50)})
    await worker.drain()
    assert (await run.mirror()).state == "quarantined"
    assert target.calls.count("log_batch") == 2, "one harmless request told that it is not the content"


async def test_a_lost_answer_changes_no_decision(source: Source, target: MemoryTarget, make_worker: MakeWorker) -> None:
    run = await source.run()
    failures = [
        Failure(method, TargetUnavailable("reset", uncertain=True), after=after)
        for method in ("log_batch", "copy_files", "log_inputs")
        for after in (True, False)
    ]
    target.failures += failures
    await run.log(params={f"p{n}": "1" for n in range(5)}, metrics=[*points("z", 9), *points("y", 9), *points("x", 9)])
    await run.log_inputs(3)
    await run.finish()
    await make_worker(target, **SMALL, mirror_limit_inputs=2).drain()
    assert [failure.times for failure in failures] == [0] * 6
    remote = target.of(run.run_id.hex)
    assert len(remote.params) == 3
    assert remote.params | overflowing(remote, "param") == {f"p{n}": "1" for n in range(5)}
    for key in "xyz":
        here, there = steps(remote, key)
        assert here + there == list(range(9))
    assert [given.dataset.name for given in remote.inputs] == ["d0", "d1"]
    assert [line["name"] for line in lines_of(remote) if line["kind"] == "dataset"] == ["d2"]


async def test_the_file_of_a_running_run_is_not_written_with_every_write(
    source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()
    worker = make_worker(target, **SMALL, mirror_overflow_every=timedelta(hours=1))
    for step in range(3):
        await run.log(metrics=[Metric(key, 1.0, START_MS + step, step) for key in "abc"])
        if step == 0:
            await worker.drain()
    async with asyncio.timeout(20):
        while not (await run.mirror()).waiting:
            with suppress(TimeoutError):
                await worker.drain(timeout_s=0.3)
    remote = target.of(run.run_id.hex)
    assert (steps(remote, "a")[0], steps(remote, "c")[1]) == ([0, 1, 2], [0]), "what fits does not wait"
    assert ((await run.mirror()).state, (await run.tags())["runmirror.status"]) == ("due", "pending")
    await run.log(metrics=points("a", 1, first=3))
    mirror = await run.mirror()
    assert (mirror.state, mirror.waiting) == ("due", False), "a write does not wait for the file"
    await run.finish()
    await worker.drain()
    assert (steps(remote, "a")[0], steps(remote, "c")[1]) == ([0, 1, 2, 3], [0, 1, 2]), "the end does not wait either"
    assert ((await run.mirror()).state, (await run.tags())["runmirror.status"]) == ("current", "partial")


async def test_more_lines_than_are_read_at_once_and_blocks_of_a_large_file(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store
) -> None:
    """Above 16 MiB the file goes in blocks, each made where the last one ended."""
    emulator.change_settings(limits={"metric_names_per_run": 1})
    limits = {"mirror_limit_metrics": 1, "mirror_debounce": timedelta(0)}
    worker = Worker(azure_settings.model_copy(update=limits), engine, store)
    run = await source.run()
    await run.log(metrics=points("native", 1))
    for part in range(0, 7000, 1000):
        await run.log(metrics=points("rest", 1000, first=part))
    for part in range(0, 3000, 100):
        await run.log(params={f"p{n}": "ü" * 3000 for n in range(part, part + 100)})
    await run.finish()
    await worker.drain()
    content = file_at(emulator, remote_run(emulator, run.run_id.hex))
    assert len(content) > 16 * 1024**2
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "metric"] == list(range(7000))
    assert len({line["key"] for line in lines if line["kind"] == "param"}) == 3000


def file_at(emulator: EmulatorProcess, remote: dict[str, object]) -> bytes:
    api = emulator.api_url.rstrip("/")
    url = f"{api}/history/v1.0{emulator.workspace_id}/experimentids/{remote['experiment_id']}/runs/{remote['run_id']}"
    with emulator.client() as client:
        signed = {"Authorization": f"Bearer {emulator.token()}"}
        told = client.get(f"{url}/artifacts/contentinfo", params={"path": PATH}, headers=signed).raise_for_status()
        found: httpx.Response = client.get(told.json()["contentUri"]).raise_for_status()
        return found.content


LOWER = {
    "params_per_run": 7, "param_value": 20, "param_key": 30, "tags_per_run": 9, "tag_value": 200, "tag_key": 40,
    "metric_names_per_run": 3, "metric_name": 20, "points_per_metric_name": 100, "run_name": 12, "run_inputs": 1,
    "metrics_per_batch": 30, "values_per_metric_in_batch": 25, "params_per_batch": 4, "tags_per_batch": 5,
    "experiment_name": 60,
}  # fmt: skip


async def test_limits_nobody_told_us_are_learned_and_remembered(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, engine: AsyncEngine
) -> None:
    emulator.change_settings(limits=LOWER)
    experiment_id = await source.experiment("e" * 80)
    for number in range(2):
        run = await source.run("a name that is too long", experiment_id=experiment_id)
        await run.log(
            params={f"p{n}": "1" for n in range(12)} | {"long": "x" * 21, "k" * 31: "1"},
            tags={f"t{n}": "1" for n in range(12)} | {"long": "x" * 201, "k" * 41: "1"},
        )
        await run.log(metrics=[*points("many", 90), *points("n" * 21, 1), *points("b", 2)])
        await run.log(metrics=[*points("many", 20, first=90), *points("c", 1), *points("d", 1)])
        await run.log_inputs(2)
        await run.finish()
        before = len(emulator.requests())
        await azure_worker.drain()
        refused = [asked for asked in emulator.requests()[before:] if asked["status"] == 400]
        assert bool(refused) == (number == 0), "once is enough"
        remote = remote_run(emulator, run.run_id.hex)
        lines = [json.loads(line) for line in file_at(emulator, remote).splitlines()]
        rest = {kind: {x["key"]: x["value"] for x in lines if x["kind"] == kind} for kind in ("param", "tag")}
        assert remote["params"] | rest["param"] == {f"p{n}": "1" for n in range(12)} | {"long": "x" * 21, "k" * 31: "1"}
        expected = {f"t{n}": "1" for n in range(12)} | {"long": "x" * 201, "k" * 41: "1"}
        assert (remote["tags"] | rest["tag"]).items() >= expected.items()
        assert len(remote["params"]) == 7
        found = [step for step, _, _ in points_of(remote, "many")]
        found += [line["step"] for line in lines if line["kind"] == "metric" and line["key"] == "many"]
        # Of the write on which the limit was learned some points stood there already: they are in both places.
        assert (found if number else sorted(set(found))) == list(range(110))
        assert {point["key"] for point in remote["metrics"]} == {"many", "b", "c"}
        assert {x["key"] for x in lines if x["kind"] == "metric"} == {"many", "n" * 21, "d"}
        assert [x["name"] for x in lines if x["kind"] == "dataset"] == ["d1"]
        assert (len(remote["inputs"]), remote["status"], remote["run_name"]) == (1, "FINISHED", "a name that ")
        assert remote["tags"]["runmirror.experiment_name"] == "e" * 80
        assert (await run.tags())["runmirror.status"] == "partial"
