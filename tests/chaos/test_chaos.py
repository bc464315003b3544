"""A few seeds of the chaos harness; `make chaos SEEDS=200` runs many."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.chaos.__main__ import explain, line, run_seeds
from tests.chaos.plan import draw
from tests.chaos.seed import Verdict

FIXED = (8, 111)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_source_and_workspace_agree_in_full_after_any_faults() -> None:
    fresh = int(os.environ.get("RUNMIRROR_TEST_SEED", random.SystemRandom().randrange(2**32)))
    verdicts: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        print(line(verdict))
        assert not verdict.differences, explain(verdict)
        verdicts.append(verdict)

    print(f"a fresh seed: {fresh} (repeat with RUNMIRROR_TEST_SEED, or make chaos SEED={fresh})")
    asyncio.run(run_seeds([*FIXED, fresh], lanes=1, blob_store=False, tell=tell))
    assert [verdict.seed for verdict in verdicts] == [*FIXED, fresh]
    assert all(verdict.faults for verdict in verdicts if verdict.seed in FIXED)
    assert all(verdict.acknowledged > 20 for verdict in verdicts)


def test_a_seed_always_means_the_same() -> None:
    for seed in range(50):
        assert draw(seed) == draw(seed)
    assert len({str(draw(seed)) for seed in range(50)}) == 50


def test_the_readme_tells_how_to_run_it() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "make chaos SEEDS=200" in readme
