"""The status routes."""

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import status
from runmirror.mirror.target import TargetRejected
from runmirror.mirror.worker import Worker
from tests.mirror.conftest import WORKSPACE_ID, MakeWorker
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Failure, MemoryTarget

MIRROR = "/api/runmirror/v1/mirror"


async def test_an_unlinked_server_says_so(client: httpx.AsyncClient, source: Source) -> None:
    await source.run()
    told = (await client.get(MIRROR)).json()
    assert (told["state"], told["workspace_id"], told["runs_behind"]) == ("not_linked", None, 1)
    assert told["lag_seconds"] >= 0


async def test_the_mirror_tells_how_it_is_doing(
    client: httpx.AsyncClient, source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    run, poison = await source.run(), await source.run()
    for logged in (run, poison):
        await logged.log(metrics=points("m", 30))
    target.failures.append(Failure("log_batch", TargetRejected("refused"), times=9, run_id=poison.run_id.hex))
    await worker.drain()
    told = (await client.get(MIRROR)).json()
    assert (told["state"], told["workspace_id"], told["last_error"]) == ("ok", WORKSPACE_ID, None)
    assert (told["runs_behind"], told["runs_quarantined"], told["lag_seconds"]) == (0, 1, None)
    assert (told["points_per_second"], told["runs_per_minute"]) == (30 / 300, 1 / 5)
    assert told["last_contact_at"] is not None
    async with engine.begin() as connection:
        await status.note_outage(connection, "503")
    told = (await client.get(MIRROR)).json()
    assert (told["state"], told["last_error"]) == ("outage", "503")


async def test_one_run_tells_how_far_it_is(
    client: httpx.AsyncClient, source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run()
    path = f"/api/runmirror/v1/runs/{run.run_id.hex}/mirror"
    told = (await client.get(path)).json()
    assert (told["state"], told["seq"], told["watermark"], told["remote_run_id"]) == ("due", 1, 0, None)
    await make_worker(target).drain()
    told = (await client.get(path)).json()
    remote_id = target.of(run.run_id.hex).run_id
    assert (told["state"], told["seq"], told["watermark"], told["remote_run_id"]) == ("current", 1, 1, remote_id)
    assert told["portal_url"] == f"https://portal.example/runs/{remote_id}"


@pytest.mark.parametrize("run_id", ["0" * 32, "nonsense", "..%2f"])
async def test_an_unknown_run_is_not_found(client: httpx.AsyncClient, run_id: str) -> None:
    answer = await client.get(f"/api/runmirror/v1/runs/{run_id}/mirror")
    assert answer.status_code == 404
