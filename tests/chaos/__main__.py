"""`make chaos SEEDS=200 [FIRST=1] [SEED=n] [LANES=2]`: many seeds, each a workload and faults of its own."""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.crash_points import KINDS
from tests.chaos.seed import Seed, Verdict, as_json
from tests.chaos.world import open_world

_ENOUGH = 20  # seeds, after which every kind of boundary must have killed somebody


async def run_seeds(seeds: list[int], *, lanes: int, blob_store: bool, tell: Callable[[Verdict], None]) -> None:
    """Several worlds side by side, each with one seed at a time: most of a seed is waiting for leases to end."""
    waiting = list(reversed(seeds))

    async def lane(folder: Path) -> None:
        async with open_world(folder, blob_store=blob_store) as world:
            while waiting:
                tell(await Seed(world, waiting.pop()).run())

    with tempfile.TemporaryDirectory(prefix="runmirror-chaos-", ignore_cleanup_errors=True) as name:
        async with asyncio.TaskGroup() as group:
            for number in range(min(lanes, len(seeds))):
                folder = Path(name) / f"lane{number}"
                folder.mkdir()
                group.create_task(lane(folder))


def line(verdict: Verdict) -> str:
    faults = ", ".join(f"{kind} {number}" for kind, number in sorted(verdict.faults.items())) or "none"
    end = "ok" if not verdict.differences else "FAILED"
    return (
        f"seed {verdict.seed}: {end}, {verdict.seconds:.1f} s, {verdict.acknowledged} writes acknowledged "
        f"({verdict.repeated} calls repeated), faults: {faults}"
    )


def explain(verdict: Verdict) -> str:
    logs = [f"--- the end of {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in verdict.logs]
    told = "\n".join(f"  {difference}" for difference in verdict.differences)
    return f"{told}\n  repeat it: make chaos SEED={verdict.seed}\n" + "\n".join(logs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, help="the first of them (default: drawn)")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--lanes", type=int, default=2, help="seeds side by side")
    parser.add_argument("--json", type=Path, help="where to write every seed's result, a line each")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(10**6) if options.first is None else options.first
    seeds = [options.seed] if options.seed is not None else list(range(first, first + options.seeds))
    began = time.monotonic()
    verdicts: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        verdicts.append(verdict)
        print(line(verdict), flush=True)
        if verdict.differences:
            print(explain(verdict), flush=True)
        if options.json is not None:
            with options.json.open("a") as sink:
                sink.write(json.dumps(as_json(verdict)) + "\n")

    asyncio.run(run_seeds(seeds, lanes=options.lanes, blob_store=True, tell=tell))
    return summarise(verdicts, time.monotonic() - began)


def summarise(verdicts: list[Verdict], seconds: float) -> int:
    """Print the totals; the exit code."""
    faults, boundaries = Counter[str](), Counter[str]()
    for verdict in verdicts:
        faults.update(verdict.faults)
        boundaries.update(verdict.boundaries)
    failed = sorted(verdict.seed for verdict in verdicts if verdict.differences)
    print(f"\n{len(verdicts)} seeds in {seconds:.0f} s, {len(failed)} failed")
    print(f"writes acknowledged: {sum(verdict.acknowledged for verdict in verdicts)}")
    print(f"faults injected: {sum(faults.values())}")
    for kind, number in sorted(faults.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"  {number:6} {kind}")
    print(f"kill -9 at {len(boundaries)} different step boundaries:")
    for kind, number in sorted(boundaries.items(), key=lambda entry: (-entry[1], entry[0])):
        print(f"  {number:6} {kind}")
    if failed:
        print("failed: " + "".join(f"\n  make chaos SEED={seed}" for seed in failed))
    # A harness that has lost its grip on the product would find nothing, and say so proudly.
    idle = [kind for kind in KINDS if not faults[f"kill -9 {kind}"]] if len(verdicts) >= _ENOUGH else []
    if idle:
        print(f"nothing was killed at: {', '.join(idle)}")
    return 1 if failed or idle else 0


if __name__ == "__main__":
    sys.exit(main())
