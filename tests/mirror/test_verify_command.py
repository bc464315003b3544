"""`runmirror verify` and the sample a worker takes: what they print, write down, repair, and end with."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.__main__ import main
from runmirror.artifacts.files import Store
from runmirror.mirror.verify import records, session
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import points_of, remote_run
from tests.mirror.damage import Damage
from tests.mirror.factories import Source, SourceRun, points

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def runmirror(azure_settings: Settings) -> Command:
    """The command line, as an operator calls it, with little patience."""
    environment = {
        "RUNMIRROR_DATABASE_URL": azure_settings.database_url,
        "RUNMIRROR_DATA_DIR": str(azure_settings.data_dir),
        "RUNMIRROR_AZUREML_WORKSPACE": azure_settings.azureml_workspace,
        "RUNMIRROR_MIRROR_SETTLE": "0.05",
        "RUNMIRROR_MIRROR_VERIFY_GRACE": "0.1",
        "RUNMIRROR_MIRROR_BACKOFF_MAX": "0.05",
    }

    async def call(*arguments: str, **more: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, list(arguments), env=environment | more)

    return call


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


async def a_run(source: Source, *, experiment_id: str = "0") -> SourceRun:
    run = await source.run(experiment_id=experiment_id)
    await run.log(metrics=points("m", 10), params={"p": "1"})
    await run.finish()
    return run


def lose_points(emulator: EmulatorProcess, run: SourceRun) -> None:
    damage = Damage(emulator, run)
    damage.points(*damage.remote["metrics"][:6])


async def test_equal_different_and_repaired_in_the_words_of_the_command(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, runmirror: Command, client: httpx.AsyncClient
) -> None:
    whole, broken = await a_run(source), await a_run(source)
    await azure_worker.drain()
    equal = await runmirror("verify")
    assert (equal.exit_code, equal.stdout) == (0, "2 runs verified: 2 equal\n"), equal.output
    lose_points(emulator, broken)
    found = await runmirror("verify", "--json")
    assert found.exit_code == 1
    first, second, summary = lines(found)
    assert (first["run_id"], first["verdict"], first["differences"]) == (whole.run_id.hex, "equal", [])
    assert (second["run_id"], second["verdict"], second["repairing"]) == (broken.run_id.hex, "different", False)
    (lost,) = second["differences"]
    assert (lost["kind"], lost["name"], lost["change"], lost["repairable"]) == ("metric", "m", "missing", True)
    assert summary["summary"] == {"equal": 1, "different": 1, "behind": 0, "unchecked": 0, "repairing": 0}
    told = (await client.get("/api/runmirror/v1/mirror")).json()["verification"]
    assert (told["runs_verified"], told["runs_different"]) == (2, 1)
    told = (await client.get(f"/api/runmirror/v1/runs/{broken.run_id.hex}/mirror")).json()["verification"]
    assert (told["verdict"], told["differences"]) == ("different", second["differences"])
    repaired = await runmirror("verify", "--run", broken.run_id.hex, "--repair")
    assert repaired.exit_code == 1
    assert "metric 'm' lacks 4 of 10 points" in repaired.stdout
    assert "back in the queue" in repaired.stdout
    assert "different" not in (await runmirror("status")).stdout
    behind = await runmirror("verify", "--run", broken.run_id.hex)
    assert (behind.exit_code, "behind" in behind.stdout) == (2, True)
    await azure_worker.drain()
    assert (await runmirror("verify")).exit_code == 0
    assert "verified      2 runs in the last day, 0 differ" in (await runmirror("status")).stdout
    copy = remote_run(emulator, broken.run_id.hex)
    assert [step for step, _, _ in points_of(copy, "m")] == list(range(10))


async def test_runs_are_chosen_by_experiment_by_sample_and_gone_on_with(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, runmirror: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(session, "PAGE", 2)
    mine = await source.experiment("mine")
    runs = [await a_run(source, experiment_id=mine if number > 2 else "0") for number in range(5)]
    await azure_worker.drain()
    ids = [run.run_id.hex for run in runs]

    async def verified(*arguments: str) -> list[str]:
        return [line["run_id"] for line in lines(await runmirror("verify", "--json", *arguments))[:-1]]

    assert await verified("--experiment", "mine") == ids[3:]
    assert await verified("--experiment", mine) == ids[3:]
    assert await verified("--sample", "2") == [ids[2], ids[1]]
    assert await verified("--sample", "2") == [ids[0], ids[3]]
    assert await verified("--after", ids[1]) == ids[2:]
    # The workspace goes away behind the first page.
    emulator.add_fault("status", {"path": "runs/get$"}, status=503, times=-1, skip=3)
    broken_off = await runmirror("verify")
    assert broken_off.exit_code == 2
    assert f"--after {ids[1]}" in broken_off.stderr
    assert (await runmirror("verify", "--experiment", "unknown")).exit_code == 2
    assert (await runmirror("verify", "--run", "nonsense")).exit_code == 2
    assert (await runmirror("verify", "--sample", "1", "--experiment", "mine")).exit_code == 2


async def test_what_people_add_in_the_workspace_can_be_passed_over(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, runmirror: Command
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    Damage(emulator, run).with_value("tags", "reviewed", "yes")
    assert (await runmirror("verify", "--repair")).exit_code == 1
    assert (await run.mirror()).state == "current", "there is nothing to send"
    assert (await runmirror("verify", "--ignore-surplus")).exit_code == 0


async def test_without_a_workspace_nothing_can_be_checked(runmirror: Command) -> None:
    result = await runmirror("verify", RUNMIRROR_AZUREML_WORKSPACE="")
    assert (result.exit_code, "no workspace is linked" in result.stderr) == (2, True)


async def test_what_breaks_is_never_called_a_difference(
    runmirror: Command, azure_worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await azure_worker.drain()
    result = await runmirror("verify", RUNMIRROR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    assert (result.exit_code, "Postgres" in result.stderr) == (2, True)
    result = await runmirror("verify", RUNMIRROR_MIRROR_VERIFY_GRACE="soon")
    assert result.exit_code == 2

    async def mistaken(*_: object, **_named: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(session.records, "count_runs", mistaken)
    result = await runmirror("verify")
    assert (result.exit_code, "KeyError" in result.stderr) == (2, True)


async def test_verifying_never_links_another_workspace(
    source: Source, azure_worker: Worker, runmirror: Command, azure_settings: Settings
) -> None:
    run = await a_run(source)
    await azure_worker.drain()
    other = f"{azure_settings.azureml_workspace}2"
    result = await runmirror("verify", RUNMIRROR_AZUREML_WORKSPACE=other)
    assert (result.exit_code, "the linked workspace is another one" in result.stderr) == (2, True)
    assert (await run.mirror()).state == "current"


async def test_one_worker_of_all_takes_the_sample_and_repairs_if_it_is_told_to(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, azure_worker: Worker, engine: AsyncEngine,
    store: Store,
) -> None:  # fmt: skip
    whole, broken = await a_run(source), await a_run(source)
    await azure_worker.drain()
    lose_points(emulator, broken)
    restless = azure_settings.model_copy(
        update={
            "mirror_verify_every": timedelta(seconds=0.5),
            "mirror_verify_grace": timedelta(seconds=0.1),
            "mirror_verify_repair": True,
        }
    )
    workers = [Worker(restless, engine, store) for _ in range(2)]
    working = [asyncio.create_task(worker.run()) for worker in workers]
    async with asyncio.timeout(30):
        while await verdicts(engine) != {whole.run_id: "equal", broken.run_id: "equal"}:
            await asyncio.sleep(0.05)
    for worker in workers:
        await worker.stop()
    await asyncio.gather(*working)
    copy = remote_run(emulator, broken.run_id.hex)
    assert [step for step, _, _ in points_of(copy, "m")] == list(range(10))


async def test_a_round_belongs_to_one_worker_and_the_first_only_starts_the_clock(
    azure_worker: Worker, engine: AsyncEngine
) -> None:
    await azure_worker.drain()
    async with engine.connect() as one, engine.connect() as other:
        never, at_once = timedelta(days=1), timedelta(0)
        assert not await records.claim_round(one, at_once)
        await one.commit()
        assert not await records.claim_round(one, never)
        assert await records.claim_round(one, at_once)
        assert not await records.claim_round(other, at_once), "somebody else is about to begin"
        await one.commit()


async def verdicts(engine: AsyncEngine) -> dict[UUID, str]:
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT run_id, verdict FROM mirror_verifications"))
        return dict(tuple(row) for row in found)
