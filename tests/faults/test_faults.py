"""Three of the faults, short; `make faults` strikes with all of them, and for longer."""

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

from tests.faults.connections import break_uploads_off, pool_is_whole
from tests.faults.database import restart
from tests.faults.figures import Figures, page
from tests.faults.stage import open_stage
from tests.faults.trial import Trial
from tests.faults.writers import Load

REPOSITORY = Path(__file__).resolve().parents[2]


def test_nothing_is_lost_doubled_or_answered_wrongly_while_the_database_fails_and_clients_hang_up(
    open_folder: Path,
) -> None:
    seed = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed} (repeat with RUNMIRROR_TEST_SEED)")
    figures = Figures("short", "all of them")
    with open_stage(open_folder, mirror=False) as stage, stage.serving() as server:
        with Trial(figures, server.url, seed=seed, load=Load(plain=4, mlflow=1)) as trial:
            for mode in ("fast", "immediate"):
                restart(stage, trial, mode, 0.0)
            with trial.fault():
                asyncio.run(stage.postgres.pause(1.0))
            trial.recover()
            root = break_uploads_off(stage, server, trial, 40, random.Random(seed))
        trial.check_livez()
        trial.compare()
        pool_is_whole(server, stage, figures, root)
        assert figures.wrong == [], f"seed {seed}: {figures}\n{server.log.read_text()[-3000:]}"
    assert figures.mlflow_failed == 0, figures
    assert figures.acknowledged > 100
    assert (figures.lost, figures.doubled) == (0, 0)


def test_what_went_wrong_stands_on_the_page() -> None:
    figures = Figures("short", "A fault", sent=2000, ok=1999, errors=Counter({"429": 1}), wrong=["a point was lost"])
    run = {"when": "2026-11-25T18:00:00", "commit": "abc", "machine": "a machine", "seed": 1, "faults": []}
    assert "Nothing was lost" in page(run)
    told = page(run | {"faults": [figures.as_json()]})
    assert "| A fault | 0 | 2,000 | 1,999 | 1 × 429 |" in told
    assert "a point was lost" in told
    assert "Nothing was lost" not in told


def test_the_readme_tells_how_to_run_them() -> None:
    assert "make faults" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "faults:" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")
