"""Which workspace a run goes to, and what becomes of it when that changes."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.entities import Tag
from runmirror.experiments import service as experiments
from runmirror.mirror import destinations
from runmirror.mirror.link import LinkRefused
from runmirror.mirror.own_tags import REMOTE_RUN_TAG, STATUS_TAG, WORKSPACE_TAG
from runmirror.mirror.target import TargetUnavailable
from runmirror.mirror.worker import Worker
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Failure
from tests.mirror.test_queue import NOW, _until_blocked
from tests.mirror.workspaces import Workspaces, arm_id


@pytest.fixture
def workspaces(engine: AsyncEngine) -> Workspaces:
    return Workspaces(engine)


@pytest.fixture
def worker(make_worker: MakeWorker, workspaces: Workspaces) -> Worker:
    return make_worker(workspaces)


async def test_the_runs_tag_beats_the_experiments_tag_which_beats_patterns_which_beat_the_default(
    source: Source, workspaces: Workspaces
) -> None:
    for workspace in ("plain", "own", "theirs"):
        await workspaces.link(workspace)
    await workspaces.link("team", "team-a/*")
    matching = await source.experiment("team-a/vision")
    tagged = await source.experiment("team-a/speech", **{WORKSPACE_TAG: "theirs"})
    routes = {
        await source.run(): "plain",
        await source.run(experiment_id=matching): "team",
        await source.run(experiment_id=tagged): "theirs",
        await source.run(experiment_id=tagged, **{WORKSPACE_TAG: "own"}): "own",
        await source.run(experiment_id=tagged, **{WORKSPACE_TAG: " "}): "theirs",
    }
    assert {run: await workspaces.of(run) for run in routes} == routes


@pytest.mark.parametrize(
    ("said", "goes_to"),
    [
        ("second", "second"),
        (" SECOND ", "second"),
        ("two", "second"),
        (arm_id("two"), "second"),
        (arm_id("TWO").upper() + "/", "second"),
        ("first", "first"),
        ("tw%", None),
        ("unheard of", None),
    ],
)
async def test_a_workspace_is_named_by_its_link_its_own_name_or_its_arm_id(
    source: Source, workspaces: Workspaces, said: str, goes_to: str | None
) -> None:
    await workspaces.link("first")
    await workspaces.link("two", name="second")
    assert await workspaces.of(await source.run(**{WORKSPACE_TAG: said})) == goes_to


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("team-a/*", "team-a/x/y", "team-ab/x"),
        ("team-?/x", "team-b/x", "team-bb/x"),
        ("100%_*", "100%_done", "100 xdone"),
        (r"back\*", r"back\slash", "backslash"),
        ("exact", "exact", "exactly"),
        ("*", "anything\nat all", None),
    ],
)
async def test_patterns_are_those_of_a_shell_and_nothing_more(
    source: Source, workspaces: Workspaces, pattern: str, fitting: str, other: str | None
) -> None:
    await workspaces.link("rest")
    await workspaces.link("fits", "no such name", pattern)
    assert await workspaces.of(await source.run(experiment_id=await source.experiment(fitting))) == "fits"
    if other is not None:
        assert await workspaces.of(await source.run(experiment_id=await source.experiment(other))) == "rest"


async def test_of_two_patterns_that_fit_that_of_the_first_link_counts(source: Source, workspaces: Workspaces) -> None:
    await workspaces.link("first", "a/b/*", default=False)
    await workspaces.link("second", "a/*", default=True)
    assert await workspaces.of(await source.run(experiment_id=await source.experiment("a/b/c"))) == "first"
    assert await workspaces.of(await source.run(experiment_id=await source.experiment("a/c"))) == "second"


async def test_a_run_without_a_route_waits_visibly_until_there_is_one(
    source: Source, workspaces: Workspaces, worker: Worker, client: httpx.AsyncClient
) -> None:
    await workspaces.link("a", "a/*", default=False)
    lost, named = await source.run(), await source.run(**{WORKSPACE_TAG: "b"})
    await worker.drain()
    for run in (lost, named):
        assert (await run.mirror()).state == "due"
        assert (await run.tags())[STATUS_TAG] == "unrouted"
        assert workspaces.holders(run) == set()
    assert (await client.get("/api/runmirror/v1/mirror")).json()["runs_unrouted"] == 2
    await workspaces.link("b")
    await worker.drain()
    assert (workspaces.holders(lost), workspaces.holders(named)) == (set(), {"b"})
    assert (await named.tags())[STATUS_TAG] == "mirrored"


async def test_a_run_that_is_sent_elsewhere_begins_anew_there_and_may_come_back(
    source: Source, workspaces: Workspaces, worker: Worker
) -> None:
    await workspaces.link("a")
    await workspaces.link("b")
    run = await source.run()
    await run.log(metrics=points("m", 20), params={"p": "1"})
    await worker.drain()
    await run.log(metrics=points("m", 20, first=20), tags={WORKSPACE_TAG: "b"})
    await worker.drain()
    assert workspaces["b"].of(run.run_id.hex).metrics == points("m", 40)
    assert workspaces["a"].of(run.run_id.hex).metrics == points("m", 20), "the old copy is left alone"
    assert (await run.tags())[REMOTE_RUN_TAG] == workspaces["b"].of(run.run_id.hex).run_id
    await run.delete_tag(WORKSPACE_TAG)
    await worker.drain()
    assert sorted(workspaces["a"].of(run.run_id.hex).metrics, key=lambda m: m.step) == points("m", 40), "no point twice"
    assert (await run.mirror()).state == "current"


async def test_a_tag_or_a_new_name_of_the_experiment_sends_its_runs_elsewhere(
    source: Source, workspaces: Workspaces, worker: Worker, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    await workspaces.link("b", "moved/*")
    experiment_id = await source.experiment("here")
    runs = [await source.run(experiment_id=experiment_id) for _ in range(3)]
    other = await source.run()
    await worker.drain()
    async with engine.begin() as connection:
        await experiments.rename(connection, experiment_id, "moved/here")
    await worker.drain()
    assert [workspaces.holders(run) for run in runs] == [{"a", "b"}] * 3
    calls = len(workspaces["a"].calls)
    await source.tag_experiment(experiment_id, WORKSPACE_TAG, "b")
    await source.tag_experiment(experiment_id, "another", "tag")
    await source.tag_experiment(experiment_id, WORKSPACE_TAG, None)
    marks = [(await run.mirror()).watermark for run in runs]
    await worker.drain()
    assert [(await run.mirror()).watermark for run in runs] == marks
    assert workspaces.holders(other) == {"a"}
    assert workspaces["a"].calls[calls:] == ["probe"], "what stays where it is costs nothing"


async def test_a_tag_that_is_written_while_routes_are_decided_is_not_overlooked(
    source: Source, workspaces: Workspaces, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    await workspaces.link("b")
    run = await source.run()
    async with engine.begin() as connection:
        assert await destinations.route(connection, settle=NOW) == 1
        writing = asyncio.create_task(run.log(tags={WORKSPACE_TAG: "b"}))
        await _until_blocked(engine)
    await writing
    assert await workspaces.of(run) == "b"


async def test_a_run_that_is_being_written_holds_up_no_route(
    source: Source, workspaces: Workspaces, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    busy, idle = await source.run(), await source.run()
    async with engine.begin() as writer:
        await experiments.set_tag(writer, "0", Tag(WORKSPACE_TAG, "a"))
        late = await source.run(experiment_id=await source.experiment("other"))
        async with asyncio.timeout(5):
            assert await workspaces.of(late) == "a"
    assert await workspaces.of(busy) == await workspaces.of(idle) == "a"


async def test_a_workspace_that_is_down_does_not_hold_up_another(
    source: Source, workspaces: Workspaces, worker: Worker, client: httpx.AsyncClient
) -> None:
    await workspaces.link("down")
    await workspaces.link("up", "up/*")
    workspaces["down"].failures.append(Failure("probe", TargetUnavailable("503"), times=-1))
    stuck = [await source.run() for _ in range(6)]
    flowing = [await source.run(experiment_id=await source.experiment(f"up/{n}")) for n in range(6)]
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        while {(await run.mirror()).state for run in flowing} != {"current"}:
            await asyncio.sleep(0.02)
    told = (await client.get("/api/runmirror/v1/mirror")).json()
    assert [(one["name"], one["state"], one["runs_behind"]) for one in told["workspaces"]] == [
        ("down", "outage", 6), ("up", "ok", 0),
    ]  # fmt: skip
    assert (told["state"], told["last_error"], told["runs_behind"]) == ("outage", "503", 6)
    workspaces["down"].failures.clear()
    async with asyncio.timeout(30):
        while {(await run.mirror()).state for run in stuck} != {"current"}:
            await asyncio.sleep(0.02)
    await worker.stop()
    await running


async def test_what_was_mirrored_to_an_unlinked_workspace_goes_where_routes_lead_now(
    source: Source, workspaces: Workspaces, worker: Worker, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    run = await source.run()
    await run.log(metrics=points("m", 5))
    await worker.drain()
    await workspaces.unlink(arm_id("a").upper())
    await worker.drain()
    mirror = await run.mirror()
    assert (mirror.state, mirror.link_id, mirror.watermark) == ("due", None, 0)
    await workspaces.link("b")
    await worker.drain()
    assert workspaces["b"].of(run.run_id.hex).metrics == points("m", 5)
    await workspaces.link("a")
    await source.tag_experiment("0", WORKSPACE_TAG, "a")
    await worker.drain()
    assert workspaces["a"].of(run.run_id.hex).metrics == points("m", 5), "linked once more, it knows its runs"


async def test_a_run_in_another_workspace_is_no_parent(source: Source, workspaces: Workspaces, worker: Worker) -> None:
    await workspaces.link("a")
    await workspaces.link("b")
    here = await source.run()
    there = await source.run(**{WORKSPACE_TAG: "b"})
    nowhere = await source.run(**{WORKSPACE_TAG: "c"})
    children = [await source.run(**{"mlflow.parentRunId": run.run_id.hex}) for run in (here, there, nowhere)]
    await worker.drain()
    tags = [workspaces["a"].of(child.run_id.hex).tags for child in children]
    assert tags[0]["mlflow.parentRunId"] == workspaces["a"].of(here.run_id.hex).run_id
    assert [one.get("runmirror.parent_run_id") for one in tags] == [None, there.run_id.hex, nowhere.run_id.hex]


async def test_an_experiment_has_a_copy_and_limits_of_its_own_in_each_workspace(
    source: Source, workspaces: Workspaces, worker: Worker, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    await workspaces.link("b")
    for name in "ab":
        run = await source.run(**{WORKSPACE_TAG: name})
        await run.log(params={f"p{n}": "1" for n in range(150)})
        await run.log(params={f"q{n}": "1" for n in range(60 if name == "a" else 10)})
    await worker.drain()
    assert [list(workspaces[name].experiments) for name in "ab"] == [["Default"], ["Default"]]
    async with engine.connect() as connection:
        copies = await connection.execute(text("SELECT count(DISTINCT link_id), count(*) FROM mirrored_experiments"))
        assert tuple(copies.one()) == (2, 2)


async def test_links_that_make_no_sense_are_refused_and_change_nothing(
    workspaces: Workspaces, engine: AsyncEngine
) -> None:
    await workspaces.link("a")
    await workspaces.link("b", "b/*")
    for asking in (
        lambda: workspaces.link("c", name="A"),
        lambda: workspaces.link("c", name="no name"),
        lambda: workspaces.link("c", ""),
        lambda: workspaces.link("b", name="a"),
        lambda: workspaces.unlink("c"),
    ):
        with pytest.raises(LinkRefused):
            await asking()
    async with engine.connect() as connection:
        names = await connection.scalars(text("SELECT name FROM mirror_links ORDER BY link_id"))
        assert list(names) == ["a", "b"]
