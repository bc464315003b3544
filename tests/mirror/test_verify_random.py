"""Made-up runs, limits, faults and damages: what was mirrored is equal, and what was damaged is found and mended."""

import math
import os
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.entities import Metric, RunStatus
from runmirror.mirror.verify.look import Sides
from runmirror.mirror.verify.verdicts import Outcome, Verdict
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.damage import Damage
from tests.mirror.factories import START_MS, Source, SourceRun
from tests.mirror.test_verify import repair, told, verdict_on

ROUNDS = int(os.environ.get("RUNMIRROR_TEST_ROUNDS", "2"))
PARENT = "mlflow.parentRunId"


async def write(run: SourceRun, others: list[SourceRun], dice: random.Random) -> None:
    """One write of any kind, most of them to the same few names."""
    number = dice.randrange(10**6)
    match dice.randrange(10):
        case 0 | 1 | 2:
            keys = [f"m{dice.randrange(5)}" for _ in range(dice.randint(1, 30))]
            values = [math.nan, math.inf, -0.0, 0.0, *(dice.random() for _ in range(6))]
            await run.log(
                metrics=[
                    Metric(key, dice.choice(values), START_MS + dice.randint(-3, 3), dice.randint(-2, 9))
                    for key in keys
                ]
            )
        case 3:
            await run.log(params={f"p{number}.{n}": "v" * dice.choice([1, 5, 600]) for n in range(dice.randint(1, 4))})
        case 4:
            await run.log(tags={f"t{dice.randrange(12)}": "v" * dice.choice([1, 5, 1100]) for _ in range(3)})
        case 5:
            if tags := [key for key in await run.tags() if key.startswith("t")]:
                await run.delete_tag(dice.choice(tags))
        case 6:
            await run.log_inputs(dice.randint(1, 4))
        case 7:
            await run.upload(f"d/f{dice.randrange(4)}", dice.randbytes(dice.randrange(50)))
        case 8:
            await run.update(
                dice.choice([RunStatus.RUNNING, RunStatus.FINISHED]), name=f"n{number}" * dice.choice([1, 5])
            )
        case 9:
            await run.log(tags={PARENT: dice.choice([*others, run]).run_id.hex})


def damages(damage: Damage, dice: random.Random) -> dict[str, Callable[[], None]]:
    """What can be done to the copy as it stands, and matters."""
    remote = damage.remote
    possible: dict[str, Callable[[], None]] = {
        "status": lambda: damage.rewrite(status="KILLED"),
        "name": lambda: damage.rewrite(run_name="other"),
        "run": damage.lose_run,
    }
    for member in ("params", "tags"):
        keys = [key for key in remote[member] if not key.startswith("runmirror.") and key != "mlflow.rootRunId"]
        if keys:
            key = dice.choice(keys)
            possible[f"{member} {key}"] = partial(damage.without, member, key)
    if points := remote["metrics"]:
        lost = dice.choice(points)
        possible[f"point {lost}"] = lambda: damage.points(*(point for point in points if point is not lost))
    paths = [file["path"] for file in remote["artifacts"]]
    # What lies at a path that has revisions is of yesterday.
    newest = [path for path in paths if sum(other.endswith(path) for other in paths) == 1 and "/revisions/" not in path]
    if newest:
        path, only_bytes = dice.choice(newest), dice.random() < 0.5
        possible[f"file {path}"] = partial(damage.lose_file, path, only_bytes=only_bytes)
    if remote["inputs"]:
        possible["inputs"] = lambda: damage.rewrite(inputs=remote["inputs"][1:])
    return possible


def all_equal(verdicts: list[Verdict]) -> bool:
    return all(verdict.outcome is Outcome.EQUAL for verdict in verdicts)


async def test_whatever_is_logged_is_found_again_and_whatever_is_lost_is_noticed(
    source: Source, emulator: EmulatorProcess, azure_settings: Settings, engine: AsyncEngine, store: Store, sides: Sides
) -> None:
    seed = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed} (repeat with RUNMIRROR_TEST_SEED; RUNMIRROR_TEST_ROUNDS for more)")
    dice = random.Random(seed)
    for number in range(ROUNDS):
        why = f"seed {seed}, round {number}"
        small = {
            "mirror_limit_params": dice.choice([2, 200]), "mirror_limit_metrics": dice.choice([2, 50]),
            "mirror_limit_tags": dice.choice([12, 50]), "mirror_limit_points": dice.choice([20, 10**6]),
            "mirror_limit_inputs": dice.choice([1, 200]), "mirror_limit_run_name": dice.choice([15, 256]),
            "mirror_page_rows": dice.choice([7, 5000]), "mirror_overflow_every": timedelta(0),
        }  # fmt: skip
        worker = Worker(azure_settings.model_copy(update=small), engine, store)
        emulator.change_settings(write_sas=dice.random() < 0.5)
        runs = [await source.run(f"run {n}", user="x" * dice.choice([1, 1100])) for n in range(5)]
        for _ in range(3):
            for _ in range(25):
                await write(dice.choice(runs), runs, dice)
            for path in dice.sample(["log-batch", "log-inputs", "batch/metadata", "runs/update", "runs/create"], 2):
                kind = dice.choice(["reset_before", "reset_after", "truncate"])
                emulator.add_fault(kind, {"path": path}, skip=dice.randrange(4))
            await worker.drain()
            emulator.clear_faults()
            verdicts = await verdict_on(sides, *runs)
            assert all_equal(verdicts), (why, small, [told(verdict) for verdict in verdicts])
        done = []
        for run in runs:
            name, damage = dice.choice([*damages(Damage(emulator, run), dice).items()])
            damage()
            done.append(name)
        for run, name, verdict in zip(runs, done, await verdict_on(sides, *runs), strict=True):
            assert verdict.outcome is Outcome.DIFFERENT, (why, small, name, await run.tags())
            assert await repair(engine, verdict), (why, name, told(verdict))
        await worker.drain()
        verdicts = await verdict_on(sides, *runs)
        for verdict in verdicts:
            if verdict.differences:
                # Its parent's copy was made anew, and is another run now.
                assert told(verdict) == [("tag", PARENT, "differs")], (why, small, done)
                assert await repair(engine, verdict), why
        await worker.drain()
        verdicts = await verdict_on(sides, *runs)
        assert all_equal(verdicts), (why, small, [told(verdict) for verdict in verdicts])
