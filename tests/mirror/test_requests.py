"""What a run costs: requests to Azure at the minimum that its limits allow, and statements to Postgres. All counted."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror.worker import Worker
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import points_of, remote_run
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, SourceRun, points
from tests.mirror.memory_target import MemoryTarget


class Asked:
    """What was asked of the emulated workspace since the last look, by the last part of the path."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self._emulator = emulator
        self._seen = len(emulator.requests())

    def new(self) -> list[str]:
        found = self._emulator.requests()[self._seen :]
        self._seen += len(found)
        ours = [request for request in found if request["host"].endswith(("azureml.ms", "windows.net"))]
        return ["PUT" if request["method"] == "PUT" else request["path"].rpartition("/")[2] for request in ours]


@pytest.fixture
async def asked(source: Source, emulator: EmulatorProcess, azure_worker: Worker) -> Asked:
    """After a first run: the experiment is known."""
    await (await source.run("warm up")).finish()
    await azure_worker.drain()
    return Asked(emulator)


# Every drain opens the workspace anew, which probes it once.
PROBE = "search"


async def test_a_small_run_takes_three_requests(source: Source, azure_worker: Worker, asked: Asked) -> None:
    """Created with its tags; params and points together; ended."""
    run = await source.run(team="x", note="y")
    for step in range(10):
        await run.log(metrics=points("m", 1, first=step), params={f"p{step}": "1"}, tags={f"t{step}": "1"})
    await run.finish()
    await azure_worker.drain()
    assert asked.new() == [PROBE, "create", "log-batch", "update"]


async def test_a_run_that_has_only_begun_takes_one_request(
    source: Source, azure_worker: Worker, asked: Asked, emulator: EmulatorProcess
) -> None:
    run = await source.run(team="x")
    await azure_worker.drain()
    assert asked.new() == [PROBE, "create"]
    assert remote_run(emulator, run.run_id.hex)["tags"]["team"] == "x"


async def test_a_run_takes_as_many_requests_as_its_points_and_files_need(
    source: Source, azure_worker: Worker, asked: Asked, emulator: EmulatorProcess
) -> None:
    """Two hundred points a request, params along with them; all files registered in one, and put once each."""
    run = await source.run()
    await run.log(metrics=points("m", 1000), params={f"p{number}": "1" for number in range(50)}, tags={"t": "1"})
    for number in range(10):
        await run.upload(f"f{number}", b"content")
    await run.finish()
    await azure_worker.drain()
    wanted = {PROBE: 1, "create": 1, "log-batch": 5, "metadata": 1, "PUT": 10, "update": 1}
    assert Counter(asked.new()) == wanted
    assert len(points_of(remote_run(emulator, run.run_id.hex), "m")) == 1000


async def test_what_is_new_of_a_run_takes_one_request_and_nothing_new_takes_none(
    source: Source, azure_worker: Worker, asked: Asked
) -> None:
    run = await source.run()
    await azure_worker.drain()
    asked.new()
    await run.log(metrics=points("m", 200), params={"p": "1"}, tags={"t": "1"})
    await azure_worker.drain()
    assert asked.new() == [PROBE, "log-batch"]
    await azure_worker.drain()
    assert asked.new() == [PROBE]


@contextmanager
def statements_about(engine: AsyncEngine, run: SourceRun) -> Iterator[list[str]]:
    """Statements that name the run."""
    found: list[str] = []

    def note(_1: object, _2: object, statement: str, parameters: tuple[object, ...], *_: object) -> None:
        if run.run_id in parameters:
            found.append(" ".join(statement.split())[:60])

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield found
    event.remove(engine.sync_engine, "before_cursor_execute", note)


@pytest.mark.parametrize("number", [1, 1000])
async def test_a_small_run_takes_three_statements_beside_its_claim(
    source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine, number: int
) -> None:
    """Read; remember the remote run and what is about to be sent; finish. One point or a thousand."""
    await source.run("the experiment is known then")
    await worker.drain()
    run = await source.run()
    await run.log(metrics=points("m", number), params={f"p{n}": "1" for n in range(min(number, 100))}, tags={"t": "1"})
    await run.finish()
    with statements_about(engine, run) as statements:
        await worker.drain()
    assert len(statements) == 3, statements
    assert target.of(run.run_id.hex).metrics == points("m", number)


async def test_every_further_page_takes_three_statements(
    source: Source, target: MemoryTarget, make_worker: MakeWorker, engine: AsyncEngine
) -> None:
    """Read; what is about to be sent; how far it is."""
    worker = make_worker(target, mirror_page_rows=2000)
    await source.run("the experiment is known then")
    await worker.drain()
    taken = []
    for pages in (2, 4):
        run = await source.run()
        for first in range(0, pages * 2000 - 100, 1000):
            await run.log(metrics=points("m", 1000, first=first))
        with statements_about(engine, run) as statements:
            await worker.drain()
        taken.append(len(statements))
    assert taken[1] - taken[0] == 2 * 3
