"""Runs that were set aside: why, what to do about it, and back into the queue with them."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from runmirror.__main__ import main
from runmirror.mirror.quarantine import CAUSES, cause_of
from runmirror.mirror.retry import Quarantine, decide
from runmirror.mirror.target import SourceChanged, TargetRejected
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import files_of, points_of, remote_run
from tests.mirror.conftest import MakeWorker
from tests.mirror.damage import Damage
from tests.mirror.factories import Source, SourceRun, points
from tests.mirror.memory_target import Failure, MemoryTarget

QUARANTINE = "/api/runmirror/v1/mirror/quarantine"
REPLAY = "/api/runmirror/v1/mirror/replay"


async def set_aside(
    source: Source, target: MemoryTarget, worker: Worker, count: int, *, experiment_id: str = "0"
) -> list[SourceRun]:
    """Runs that the target refused once."""
    runs = [await source.run(f"run {number}", experiment_id=experiment_id, team="x") for number in range(count)]
    for run in runs:
        await run.log(params={"p": "1"})
        # Refused, and refused again when the mirror asks whether it is only what is in it.
        target.failures.append(Failure("log_batch", TargetRejected("no"), times=2, run_id=run.run_id.hex))
    await worker.drain()
    return runs


def ids(runs: Sequence[SourceRun]) -> list[str]:
    return [run.run_id.hex for run in runs]


async def states(runs: Sequence[SourceRun]) -> list[str]:
    return [(await run.mirror()).state for run in runs]


def move_experiment(emulator: EmulatorProcess, run: SourceRun, verb: str) -> None:
    """Archive or restore, in the workspace, the experiment that the run is mirrored into."""
    url = f"{emulator.api_url.rstrip('/')}/mlflow/v2.0{emulator.workspace_id}/api/2.0/mlflow/experiments/{verb}"
    wanted = {"experiment_id": remote_run(emulator, run.run_id.hex)["experiment_id"]}
    with emulator.client() as client:
        client.post(url, json=wanted, headers={"Authorization": f"Bearer {emulator.token()}"}).raise_for_status()


async def quarantined(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(QUARANTINE)).json()["runs"]
    return found


async def test_poison_isolation_a_refused_run_is_set_aside_with_reason_and_digest_while_siblings_flow_on(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, client: httpx.AsyncClient
) -> None:
    archived, other = await source.experiment("archived"), await source.experiment("other")
    before = await source.run(experiment_id=archived)
    await azure_worker.drain()
    move_experiment(emulator, before, "delete")
    run, sibling = await source.run("no place", experiment_id=archived), await source.run(experiment_id=other)
    await run.log(metrics=points("m", 10))
    await azure_worker.drain()
    assert (await sibling.mirror()).state == "current", "siblings flow on"
    (told,) = await quarantined(client)
    assert (told["run_id"], told["run_name"], told["experiment_name"]) == (run.run_id.hex, "no place", "archived")
    assert (told["code"], "must be in the 'active' state" in told["reason"]) == ("EXPERIMENT_ARCHIVED", True)
    assert "Restore it there and replay" in told["advice"]
    assert told["quarantined_at"] is not None
    assert f"request id {told['request_id']}," in told["reason"]
    assert f"payload {told['payload_digest']})" in told["reason"]
    await client.post(REPLAY, json={"all": True})
    await azure_worker.drain()
    (again,) = await quarantined(client)
    assert again["request_id"] != told["request_id"], "it was asked again"
    assert again["payload_digest"] == told["payload_digest"], "the same"
    move_experiment(emulator, before, "restore")
    answer = await client.post(REPLAY, json={"run_ids": [run.run_id.hex]})
    assert answer.json() == {"run_ids": [run.run_id.hex], "more": False}
    assert (await run.tags())["runmirror.status"] == "pending"
    await azure_worker.drain()
    assert [step for step, _, _ in points_of(remote_run(emulator, run.run_id.hex), "m")] == list(range(10))
    assert (await run.tags())["runmirror.status"] == "mirrored"
    assert await quarantined(client) == []


async def test_a_refusal_inside_an_answer_tells_its_request_id_too(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, client: httpx.AsyncClient
) -> None:
    emulator.change_settings(limits={"artifact_path": 20})
    run = await source.run()
    await run.upload("short", b"1")
    await run.upload("a path that is longer than it may be", b"2")
    await azure_worker.drain()
    (told,) = await quarantined(client)
    assert (told["code"], "FieldName=ArtifactPath, Limit=20, Size=36" in told["reason"]) == ("OVER_LIMIT", True)
    assert (len(told["request_id"]), told["payload_digest"][:7]) == (16, "sha256:")
    emulator.change_settings(limits={"artifact_path": 5000})
    await client.post(REPLAY, json={"experiment_ids": ["0"]})
    await azure_worker.drain()
    assert len(files_of(remote_run(emulator, run.run_id.hex))) == 2


async def test_a_run_whose_copy_was_removed_for_good_gets_a_new_one_with_everything(
    source: Source, emulator: EmulatorProcess, azure_worker: Worker, client: httpx.AsyncClient
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 10), params={"a": "1"})
    await azure_worker.drain()
    Damage(emulator, run).lose_run()
    await run.log(metrics=points("m", 10, first=10))
    await azure_worker.drain()
    (told,) = (await client.get(QUARANTINE)).json()["runs"]
    assert told["code"] == "RUN_VANISHED"
    await client.post(REPLAY, json={"all": True})
    await azure_worker.drain()
    copy = remote_run(emulator, run.run_id.hex)
    assert [step for step, _, _ in points_of(copy, "m")] == list(range(20))
    assert copy["params"] == {"a": "1"}


async def test_replay_takes_what_it_is_told_and_leaves_the_rest(
    source: Source, target: MemoryTarget, worker: Worker, client: httpx.AsyncClient, make_worker: MakeWorker
) -> None:
    here = await set_aside(source, target, worker, 2)
    other = await source.experiment("other")
    there = await set_aside(source, target, worker, 2, experiment_id=other)
    current = await source.run()
    await worker.drain()
    dry = (await client.post(REPLAY, json={"all": True, "dry_run": True})).json()
    assert (dry["run_ids"], await states(here + there)) == (ids(here + there), ["quarantined"] * 4)
    some = (await client.post(REPLAY, json={"run_ids": ids([here[1], current])})).json()
    assert some["run_ids"] == ids(here[1:])
    assert (await client.post(REPLAY, json={"experiment_ids": [other]})).json()["run_ids"] == ids(there)
    assert await states([*here, *there, current]) == ["quarantined", "due", "due", "due", "current"]
    await worker.drain()
    assert await states([*here, *there]) == ["quarantined", "current", "current", "current"]


async def test_the_quarantine_comes_in_pages_the_newest_run_first(
    source: Source, target: MemoryTarget, worker: Worker, client: httpx.AsyncClient
) -> None:
    runs = await set_aside(source, target, worker, 5)
    seen, token = [], ""
    while True:
        page = (await client.get(QUARANTINE, params={"max_results": 2, "page_token": token})).json()
        seen += [run["run_id"] for run in page["runs"]]
        token = page["next_page_token"] or ""
        if not token:
            break
    assert seen == ids(runs)[::-1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"all": False}, 400),
        ({"all": True, "run_ids": []}, 400),
        ({"run_ids": ["-nonsense"]}, 404),
        ({"run_ids": "all"}, 400),
        ({"run_ids": ["0" * 32] * 1001}, 400),
        ({"experiment_ids": ["x"]}, 400),
        ({"run_ids": ["0" * 32]}, 200),
    ],
)
async def test_a_replay_of_nonsense_is_refused(client: httpx.AsyncClient, body: dict[str, object], status: int) -> None:
    assert (await client.post(REPLAY, json=body)).status_code == status


@pytest.mark.parametrize("query", [{"max_results": "0"}, {"max_results": "1001"}, {"page_token": "x"}])
async def test_a_page_of_nonsense_is_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    assert (await client.get(QUARANTINE, params=query)).status_code == 400


async def test_the_command_says_what_it_did(
    source: Source, target: MemoryTarget, worker: Worker, settings: Settings
) -> None:
    runs = await set_aside(source, target, worker, 3)
    environment = {"RUNMIRROR_DATABASE_URL": settings.database_url, "RUNMIRROR_DATA_DIR": str(settings.data_dir)}

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(main, ["replay", *arguments], env=environment)
        return done.exit_code, done.stdout, done.stderr

    code, out, err = await asyncio.to_thread(call, "--all", "--dry-run", "--json")
    assert (code, [json.loads(line)["run_id"] for line in out.splitlines()]) == (0, ids(runs))
    assert (err, await states(runs)) == ("3 runs would go back in the queue\n", ["quarantined"] * 3)
    code, out, err = await asyncio.to_thread(call, "--run", runs[1].run_id.hex)
    assert (code, err) == (0, "1 runs are back in the queue\n")
    assert f"run {runs[1].run_id.hex} 'run 1': FAILED since" in out
    assert await states(runs) == ["quarantined", "due", "quarantined"]
    code, _, err = await asyncio.to_thread(call, "--experiment", "nobody's")
    assert (code, "there is no experiment" in err) == (2, True)
    code, _, err = await asyncio.to_thread(call, "--experiment", "Default")
    assert (err, await states(runs)) == ("2 runs are back in the queue\n", ["due"] * 3)
    assert (await asyncio.to_thread(call))[0] == 2


def test_every_cause_knows_its_words_and_what_helps(settings: Settings) -> None:
    """The words as they come: of Azure, of the adapter, and of `retry`."""
    gave_up = decide(
        SourceChanged("artifact 'a' is missing, or is not as it was uploaded"), attempt=9, outages=0, run_outages=0,
        jitter=0, settings=settings,
    )  # fmt: skip
    mistake = decide(KeyError("x"), attempt=9, outages=0, run_outages=0, jitter=0, settings=settings)
    assert isinstance(gave_up, Quarantine)
    assert isinstance(mistake, Quarantine)
    told = {
        "FieldName=X: over the size limit. (HTTP 400 to POST x)": "OVER_LIMIT",
        "run 1 is not in the workspace any more: NotFound: x (HTTP 404 to POST x, request id 7)": "RUN_VANISHED",
        "UserError: The experiment 1 must be in the 'active' state. (HTTP 400 to POST x)": "EXPERIMENT_ARCHIVED",
        "artifact 'a' is registered in the workspace but may not be uploaded": "ARTIFACT_REFUSED",
        "UserError: something else (HTTP 400 to POST x)": "REFUSED",
        gave_up.reason: "SOURCE_FILE_CHANGED",
        mistake.reason: "UNEXPECTED",
        "": "FAILED",
    }
    assert {reason: cause_of(reason).code for reason in told} == told
    assert all(cause.advice for cause in CAUSES)
