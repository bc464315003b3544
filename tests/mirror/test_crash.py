"""kill -9 of workers, at chosen and at random moments: nothing is lost, and nothing stands there twice."""

import asyncio
import base64
import hashlib
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runmirror.entities import Metric, RunStatus
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import files_of, points_of, remote_run
from tests.mirror.factories import START_MS, Source, SourceRun, points
from tests.mirror.worker_process import working

ROUNDS = 6
BOUNDARIES = [
    "experiments/create", "runs/create", "runs/delete-tag", "runs/log-batch", "runs/log-inputs", "batch/metadata",
    "b.bin", "overflow.jsonl", "runs/update",
]  # fmt: skip


async def until(condition: Callable[[], Awaitable[bool]], deadline_s: float = 30.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def struck(emulator: EmulatorProcess) -> bool:
    """Whether the fault has hit a request, which now waits for its answer."""
    return all(fault["hits"] for fault in await asyncio.to_thread(emulator.faults))


async def is_current(run: SourceRun) -> bool:
    return (await run.mirror()).state == "current"


def steps_of(emulator: EmulatorProcess, run: SourceRun, key: str) -> list[int]:
    return [step for step, _, _ in points_of(remote_run(emulator, run.run_id.hex), key)]


@pytest.mark.parametrize("kind", ["hang", "hang_after"])
async def test_a_worker_may_die_before_and_after_every_request(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, tmp_path: Path, kind: str
) -> None:
    """One after the other, each worker dies while its request is under way; the next begins where it stood."""
    run = await source.run("r", experiment_id=await source.experiment("crash"), gone="1", kept="1")
    await run.delete_tag("gone")
    await run.log(metrics=points("m", 500), params={"p": "1", "long": "x" * 501})
    await run.log_inputs(2)
    for name in ("a.bin", "b.bin", "c.bin"):
        await run.upload(name, name.encode())
    await run.finish()
    log = tmp_path / "worker.log"
    for boundary in BOUNDARIES:
        # The third batch of five hundred points: of the page before it, two arrived.
        skip = 2 if boundary == "runs/log-batch" else 0
        fault = emulator.add_fault(kind, {"path": boundary + "$"}, seconds=60, skip=skip)
        with working(azure_settings, emulator, log) as worker:
            await until(lambda: struck(emulator))
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        with emulator.control() as control:
            control.delete(f"/faults/{fault}").raise_for_status()
    with working(azure_settings, emulator, log):
        await until(lambda: is_current(run))
    remote = remote_run(emulator, run.run_id.hex)
    assert steps_of(emulator, run, "m") == list(range(500))
    assert (remote["params"], remote["status"], remote["tags"]["kept"]) == ({"p": "1"}, "FINISHED", "1")
    assert "gone" not in remote["tags"]
    files = {path: size for path, (size, _) in files_of(remote).items()}
    assert files.pop("runmirror/overflow.jsonl")
    assert files == {"a.bin": 5, "b.bin": 5, "c.bin": 5}
    assert [given["dataset"]["name"] for given in remote["inputs"]] == ["d0", "d1"]
    assert len(emulator.state()["experiments"]) == 1


async def test_a_stalled_worker_that_wakes_without_its_lease_sends_nothing(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, tmp_path: Path
) -> None:
    run = await source.run()
    await run.log(metrics=points("m", 1000))
    emulator.add_fault("hang_after", {"path": "runs/log-batch"}, seconds=0.5, skip=1)
    with working(azure_settings, emulator, tmp_path / "stalled.log") as stalled:
        await until(lambda: struck(emulator))
        stalled.send_signal(signal.SIGSTOP)
        with working(azure_settings, emulator, tmp_path / "other.log"):
            await until(lambda: is_current(run))
            before = len(emulator.requests())
            stalled.send_signal(signal.SIGCONT)
        # The stalled one is alone now; it lives, and does honest work.
        second = await source.run("second")
        await second.log(metrics=points("m", 10))
        await until(lambda: is_current(second))
    asked = [r["path"].rpartition("/")[2] for r in emulator.requests()[before:]]
    assert asked.count("log-batch") == 1
    assert steps_of(emulator, run, "m") == list(range(1000))
    assert steps_of(emulator, second, "m") == list(range(10))


async def test_workers_killed_at_random_lose_and_repeat_nothing(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, azure_worker: Worker, tmp_path: Path
) -> None:
    seed = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed} (repeat with RUNMIRROR_TEST_SEED)")
    dice = random.Random(seed)
    runs = [await source.run(f"run {number}") for number in range(6)]
    logged = dict.fromkeys((run.run_id for run in runs), 0)
    files: dict[str, dict[str, bytes]] = {run.run_id.hex: {} for run in runs}
    writing = True

    async def write(run: SourceRun, own: random.Random) -> None:
        while writing:
            first, count = logged[run.run_id], own.randint(1, 300)
            metrics = [
                Metric(key, step / 3, START_MS + step, step) for step in range(first, first + count) for key in "ab"
            ]
            await run.log(metrics=metrics, tags={"last": str(first)})
            logged[run.run_id] += count
            if own.random() < 0.3:
                path, content = f"dir/{own.randint(0, 4)}", own.randbytes(own.randint(0, 2000))
                await run.upload(path, content)
                files[run.run_id.hex][path] = content
            await asyncio.sleep(own.random() / 10)
        await run.update(RunStatus.FINISHED, end_time_ms=START_MS)

    writers = [asyncio.create_task(write(run, random.Random(dice.random()))) for run in runs]
    for number in range(ROUNDS):
        with working(azure_settings, emulator, tmp_path / f"{number}.log") as worker:
            before = len(emulator.requests())
            # At work: it has sent something. Then some random moment later it is gone.
            await until(lambda at=before: sent_since(emulator, at))
            await asyncio.sleep(dice.random() * 0.7)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    writing = False
    await asyncio.gather(*writers)
    await azure_worker.drain(timeout_s=120)
    for run in runs:
        remote = remote_run(emulator, run.run_id.hex)
        for key in "ab":
            assert steps_of(emulator, run, key) == list(range(logged[run.run_id])), f"seed {seed}"
        assert remote["status"] == "FINISHED"
        assert remote["tags"]["last"] == (await run.tags())["last"]
        assert files_of(remote) == {
            path: (len(content), base64.b64encode(hashlib.md5(content).digest()).decode())
            for path, content in files[run.run_id.hex].items()
        }, f"seed {seed}"
    assert len(emulator.state()["runs"]) == len(runs)


async def sent_since(emulator: EmulatorProcess, number: int) -> bool:
    requests = await asyncio.to_thread(emulator.requests)
    return any(request["path"].endswith(("log-batch", "runs/create")) for request in requests[number:])
