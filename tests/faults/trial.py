"""The course of every fault: clients log, it strikes, it ends, clients go on; then what is stored is counted."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx

from tests.faults.figures import Figures
from tests.faults.reading import compare
from tests.faults.stage import Watch
from tests.faults.writers import API, Load, MlflowWriter, PlainWriter, Writer

MOST_TOLD = 5
WARM_WRITES = 5
WARM_S = 60.0
RECOVERY_S = 90.0
LIVEZ_S = 5.0  # two busy cores: the server is one process among many
GRACE_S = 2.0  # what was under way when the fault struck, or ended, may still be answered as before


class Trial:
    """As a context: the clients run while it lasts, and the probes are watched."""

    def __init__(
        self, figures: Figures, url: str, *, seed: int, load: Load | None = None, folder: Path | None = None
    ) -> None:
        load = load or Load()
        self.figures = figures
        self.url = url
        self.watch = Watch(url)
        self.struck = self.ended = 0.0
        self._stopping = threading.Event()
        answer = httpx.post(f"{url}{API}/experiments/create", json={"name": figures.fault}, trust_env=False, timeout=30)
        answer.raise_for_status()
        self.experiment = answer.json()["experiment_id"]
        files = folder if load.file_bytes else None
        self.plain = [
            PlainWriter(url, self.experiment, f"plain-{n}", self._stopping, seed=f"{seed}-{n}", load=load)
            for n in range(load.plain)
        ]
        self.mlflow = [
            MlflowWriter(url, self.experiment, f"mlflow-{n}", self._stopping, files) for n in range(load.mlflow)
        ]  # fmt: skip
        self.writers: list[Writer] = [*self.plain, *self.mlflow]

    def __enter__(self) -> Self:
        self.figures.clients = len(self.writers)
        self.watch.__enter__()
        for writer in self.writers:
            writer.start()
        self.until(lambda: all(len(writer.answers) >= WARM_WRITES for writer in self.writers), WARM_S, "a warm start")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        for writer in self.writers:
            writer.join()
        self.watch.__exit__()
        if kind is None:
            self._count()

    @contextmanager
    def fault(self) -> Iterator[None]:
        self.struck = time.monotonic()
        try:
            yield
        finally:
            self.ended = time.monotonic()
            self.figures.outage_s += self.ended - self.struck

    def recover(self) -> None:
        """Wait until every client has been answered again, and note how long that took."""
        back = [writer.first_answer_after for writer in self.plain]  # the others wait as long as they were told to
        self.until(lambda: all(answered(self.ended) for answered in back), RECOVERY_S, "recovery")
        answers = [answered(self.ended) or time.monotonic() for answered in back]
        self.figures.recovery_s = max(self.figures.recovery_s or 0, max(answers) - self.ended)

    def until(self, condition: object, patience_s: float, what: str) -> None:
        assert callable(condition)
        deadline = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline:
                self.figures.wrong.append(f"no {what} within {patience_s:.0f} s")
                return
            time.sleep(0.02)

    def compare(self) -> None:
        """After the clients have ended."""
        compare(self.url, self.experiment, self.writers, self.figures)

    def check_livez(self) -> None:
        """It stays true all the time."""
        seen = self.watch.seen["/livez"]
        if bad := [look for look in seen if look.status != 200 or look.took_s > LIVEZ_S]:
            self.figures.wrong.append(f"/livez: {len(bad)} of {len(seen)} looks were bad: {bad[:3]}")
        self.figures.notes.append(f"/livez true {len(seen)} of {len(seen)} times" if not bad else "/livez failed")

    def check_readyz(self, named: str) -> None:
        """While the fault lasted it said no and why; before and after, yes."""
        during = self.watch.between("/readyz", self.struck + GRACE_S, self.ended - GRACE_S)
        ready = [look for look in during if look.status == 200]
        slow = [look for look in during if look.status == 0]
        unnamed = [look for look in during if look.status == 503 and named not in look.said]
        wrong = self.figures.wrong
        wrong += [f"/readyz said yes {len(ready)} times of {len(during)} in the fault: {ready[:2]}"] if ready else []
        wrong += [f"/readyz did not answer {len(slow)} times: {slow[:2]}"] if slow else []
        wrong += [f"/readyz did not name {named!r}: {unnamed[:2]}"] if unnamed else []
        wrong += ["/readyz was never asked in the fault"] if not during else []
        back = [look for look in self.watch.between("/readyz", self.ended, float("inf")) if look.status == 200]
        if not back:
            wrong.append("/readyz never said yes again")
            return
        self.figures.notes.append(
            f"/readyz said no {len(during) - len(ready)} of {len(during)} times in the fault and yes "
            f"{back[0].began + back[0].took_s - self.ended:.1f} s after it"
        )

    def _count(self) -> None:
        figures = self.figures
        wrong = [f"{writer.name}: {what}" for writer in self.writers for what in writer.wrong]
        figures.wrong += wrong[:MOST_TOLD] + (
            [f"… and {len(wrong) - MOST_TOLD} more"] if len(wrong) > MOST_TOLD else []
        )
        for plain in self.plain:
            figures.sent += plain.sent
            figures.ok += len(plain.answers)
            figures.errors += plain.errors
            figures.longest_s = max(figures.longest_s, plain.longest_s)
        for client in self.mlflow:
            figures.mlflow_calls += client.sent
            figures.mlflow_failed += len(client.failed)
        if self.mlflow:
            longest = max(client.longest_s for client in self.mlflow)
            figures.notes.append(f"the mlflow client's longest call, with its repeats, took {longest:.1f} s")
        if failed := [what for client in self.mlflow for what in client.failed]:
            figures.notes.append(f"mlflow client: {failed[0]}")
