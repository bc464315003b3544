"""The server's processes: killed at random, and living with a clock that is wrong."""

import asyncio
import random
import time
from pathlib import Path

from tests.chaos.nursery import Child, Nursery
from tests.chaos.seed import Keep
from tests.faults.database import finish
from tests.faults.figures import Figures
from tests.faults.stage import Stage, open_stage
from tests.faults.trial import Trial
from tests.server import START_DEADLINE_S, clean_environment, free_port

KILLS = 50
LONGEST_LIFE_S = 0.8
CLOCK_S = 8.0
_LIBFAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def killed(folder: Path, seed: int) -> Figures:
    """The server, and in turn the worker, is killed by -9 fifty times"""
    figures = Figures("kill-9", f"Server killed by -9 {KILLS} times at random, the worker too")
    with open_stage(folder) as stage:
        asyncio.run(_killed(stage, figures, random.Random(seed), seed))
    return figures


async def _killed(stage: Stage, figures: Figures, dice: random.Random, seed: int) -> None:
    port = free_port()
    environment = clean_environment(stage.environment())
    (stage.folder / "data").mkdir()
    log = stage.folder / "data" / "server.log"
    async with Nursery() as nursery:

        async def start_server(_: object) -> Child:
            return await nursery.start(port, environment, log)

        async def start_worker(_: object) -> Child:
            return await nursery.start("worker", environment, stage.folder / "worker.log")

        keeps = [Keep(start_server, []), Keep(start_worker, [])]
        keeping = [(keep, asyncio.create_task(keep.run())) for keep in keeps]
        try:
            await _up(port)
            trial = await asyncio.to_thread(Trial, figures, f"http://127.0.0.1:{port}", seed=seed)
            await asyncio.to_thread(trial.__enter__)
            with trial.fault():
                for number in range(KILLS):
                    answered = sum(len(writer.answers) for writer in trial.writers)
                    await asyncio.sleep(dice.uniform(0.0, LONGEST_LIFE_S))
                    while sum(len(writer.answers) for writer in trial.writers) == answered:
                        await asyncio.sleep(0.01)  # one that has not answered yet is not worth killing
                    victims = keeps if number % 5 == 0 else keeps[:1]
                    for keep in victims:
                        if keep.child is not None:
                            await keep.child.kill()
            await asyncio.to_thread(trial.recover)
            await asyncio.to_thread(trial.__exit__, None)
            finish(trial)
            await asyncio.to_thread(trial.compare)
            await asyncio.to_thread(stage.compare_with_workspace, trial.url, figures)
        finally:
            for keep, task in keeping:
                await keep.stop(task)


async def _up(port: int) -> None:
    async with asyncio.timeout(START_DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def clock_moved(folder: Path, seed: int) -> Figures:
    """The clock of server and worker jumps an hour ahead, and an hour behind; the database keeps its own"""
    figures = Figures("clock", "Clock of server and worker moved by an hour, both ways, and back")
    if not Path(_LIBFAKETIME).exists():
        figures.wrong.append("this needs libfaketime: apt-get install faketime")
        return figures
    clock = folder / "clock"
    _set(clock, 0)
    faked = {
        "LD_PRELOAD": _LIBFAKETIME, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    with open_stage(folder) as stage, stage.serving(**faked) as server:
        with Trial(figures, server.url, seed=seed) as trial:
            with trial.fault():
                for offset_s in (3600, -3600, 0):
                    _set(clock, offset_s)
                    time.sleep(CLOCK_S)
            trial.recover()
        trial.check_livez()
        if said := [look for look in trial.watch.seen["/readyz"] if look.status != 200]:
            figures.wrong.append(f"/readyz said no: {said[:2]}")
        finish(trial)
        trial.compare()
        stage.compare_with_workspace(server.url, figures)
    return figures


def _set(clock: Path, offset_s: int) -> None:
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{offset_s:+d}")
    fresh.replace(clock)
