"""`make faults [FAULT=name]`: each fault strikes a real server while clients log; the figures go to docs/faults.md."""

import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.bench.drawing import write_json
from tests.bench.machine import commit, machine
from tests.faults import connections, database, processes, stores
from tests.faults.figures import Figures, page

DOCS = Path(__file__).resolve().parents[2] / "docs"
FAULTS: dict[str, Callable[[Path, int], Figures]] = {
    "postgres-restart": database.restarted,
    "postgres-pause": database.paused,
    "postgres-pause-long": database.paused_for_long,
    "blob-gone": stores.blob_store_gone,
    "disk-full-artifacts": stores.artifact_disk_full,
    "disk-full-postgres": stores.database_disk_full,
    "kill-9": processes.killed,
    "idle": connections.idle,
    "slow-loris": connections.slow,
    "hang-up": connections.hang_up,
    "clock": processes.clock_moved,
}


@click.command()
@click.option("--fault", "chosen", multiple=True, type=click.Choice(list(FAULTS)), help="only this one")
@click.option("--seed", type=int, help="of what clients write and when faults strike (default: drawn)")
@click.option("--keep", is_flag=True, help="keep the result: docs/faults.md")
def main(*, chosen: tuple[str, ...], seed: int | None, keep: bool) -> None:
    """Exit code 1 when something was lost, doubled, answered wrongly, or did not recover."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that everything started is ended
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    found = []
    for name in chosen or FAULTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="runmirror-faults-", ignore_cleanup_errors=True) as given:
            folder = Path(given)
            folder.chmod(0o755)  # as root, Postgres runs as another user
            figures = FAULTS[name](folder, seed)
            if figures.wrong:
                _show_log(folder)
        found.append(figures.as_json())
        click.echo(f"{name} ({time.monotonic() - began:.0f} s): {found[-1]}", err=True)
    run = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "commit": commit(),
        "seed": seed, "faults": found,
    }  # fmt: skip
    told = page(run)
    click.echo(told)
    if keep:
        write_json(DOCS / "bench", "faults", run)
        (DOCS / "faults.md").write_text(told, encoding="utf-8")
    sys.exit(any(figures["wrong"] for figures in found))


def _show_log(folder: Path) -> None:
    """The first trouble that was unforeseen, and the end."""
    for log in folder.glob("data/server.log"):
        said = log.read_text(errors="replace")
        first = said.find("unforeseen error")
        unforeseen = said[first : first + 12_000] if first >= 0 else "nothing unforeseen"
        click.echo(f"--- {log.name}\n{unforeseen}\n--- its end\n{said[-3000:]}", err=True)


if __name__ == "__main__":
    main()
