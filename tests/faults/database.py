"""Postgres is restarted, both ways, and stands still for twenty seconds."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from tests.faults.figures import Figures
from tests.faults.stage import Stage, open_stage
from tests.faults.trial import Trial

PAUSED_S = 20.0
AWAY_S = 20.0
# With these the server gives up on a silent Postgres while it is still silent.
_HASTY = {"RUNMIRROR_DB_STATEMENT_TIMEOUT": "2", "RUNMIRROR_DB_POOL_TIMEOUT": "2"}


def restarted(folder: Path, seed: int) -> Figures:
    """Postgres is restarted at once, restarted as by a crash, and stays away for a while"""
    figures = Figures("postgres-restart", f"Postgres restarted: `fast`, `immediate`, and away for {AWAY_S:.0f} s")
    with open_stage(folder) as stage, stage.serving() as server:
        with Trial(figures, server.url, seed=seed) as trial:
            for mode, away_s in (("fast", 0.0), ("immediate", 0.0), ("fast", AWAY_S)):
                restart(stage, trial, mode, away_s)
        check(stage, trial, "unreachable")
    return figures


def restart(stage: Stage, trial: Trial, mode: str, away_s: float) -> None:
    with trial.fault():
        asyncio.run(stage.postgres.stop(mode))
        time.sleep(away_s)
        asyncio.run(stage.postgres.start())
    trial.recover()


def paused(folder: Path, seed: int) -> Figures:
    """Postgres is stopped by SIGSTOP, no longer than the server waits"""
    figures = Figures("postgres-pause", f"Postgres stands still (SIGSTOP) for {PAUSED_S:.0f} s")
    return _paused(figures, folder, seed, {})


def paused_for_long(folder: Path, seed: int) -> Figures:
    """Postgres is stopped by SIGSTOP, longer than the server waits"""
    figures = Figures(
        "postgres-pause-long", f"The same, with a server that waits 2 s for a statement ({PAUSED_S:.0f} s)"
    )
    return _paused(figures, folder, seed, _HASTY)


def _paused(figures: Figures, folder: Path, seed: int, environment: Mapping[str, str]) -> Figures:
    with open_stage(folder) as stage, stage.serving(**environment) as server:
        with Trial(figures, server.url, seed=seed) as trial:
            with trial.fault():
                asyncio.run(stage.postgres.pause(PAUSED_S))
            trial.recover()
        check(stage, trial, "unreachable")
    return figures


def check(stage: Stage, trial: Trial, named: str, **environment: str) -> None:
    """The probes told the truth, nothing is lost here, and the workspace has it all."""
    trial.check_livez()
    trial.check_readyz(named)
    finish(trial)
    trial.compare()
    stage.compare_with_workspace(trial.url, trial.figures, **environment)


def finish(trial: Trial) -> None:
    """Outages shorter than the retries of the mlflow client are none to it."""
    if trial.figures.mlflow_failed:
        trial.figures.wrong.append(f"the mlflow client gave up {trial.figures.mlflow_failed} times")
