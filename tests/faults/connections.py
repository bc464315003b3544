"""Connections that do nothing, hardly anything, or end in the middle."""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil

from tests.faults.database import finish
from tests.faults.figures import Figures
from tests.faults.stage import DATABASE, Stage, open_stage
from tests.faults.trial import Trial
from tests.faults.writers import API, FILES
from tests.server import Server

IDLE = 500
HELD_S = 10.0
SLOW = 300
PATIENCE_S = 4.0
_METRIC = f"{API}/runs/log-metric"
HANG_UPS = 400
LARGEST_BYTES = 6 * 1024**2
GROWTH_MB = 40.0  # of memory, between the first quarter of the hang-ups and the last
SLOWEST_S = 10.0  # two busy cores: the server is one process among many


def idle(folder: Path, seed: int) -> Figures:
    """500 connections that are held open: half never say a word, half have asked something once"""
    figures = Figures("idle", f"{IDLE} idle connections held open")
    with open_stage(folder, mirror=False) as stage, stage.serving() as server:
        with Trial(figures, server.url, seed=seed) as trial, trial.fault(), ExitStack() as held:
            for number in range(IDLE):
                made = held.enter_context(_connect(server))
                if number % 2:
                    made.sendall(_request("GET", "/version"))
            _nobody_else_waits(trial)
        trial.check_livez()
        trial.compare()
        finish(trial)
    return figures


def slow(folder: Path, seed: int) -> Figures:
    """300 clients that send a byte now and then: a third headers, a third a JSON body, a third a file"""
    figures = Figures("slow-loris", f"{SLOW} slow clients: a byte of header, JSON or file every half second")
    patience = {"RUNMIRROR_CLIENT_TIMEOUT": f"{PATIENCE_S:g}"}
    with open_stage(folder, mirror=False) as stage, stage.serving(**patience) as server:
        with Trial(figures, server.url, seed=seed) as trial, trial.fault(), ExitStack() as held:
            starts = [_request("POST", _METRIC, "X-Slow: ", ends=False),
                      _request("POST", _METRIC, "Content-Type: application/json", "Content-Length: 5000"),
                      _request("PUT", f"{FILES}/slow", "Content-Length: 5000000")]  # fmt: skip
            made = [held.enter_context(_connect(server)) for _ in range(SLOW)]
            for number, each in enumerate(made):
                each.sendall(starts[number % 3])
            _nobody_else_waits(trial, lambda: _drip(made))
            open_still = sum(_is_open(each) for each in made)
            held_still = f"{open_still} of the {SLOW} were still held after {HELD_S:.0f} s"
            figures.notes.append(f"{held_still} by a server that waits {PATIENCE_S:.0f} s for them")
            figures.wrong += [f"{open_still} slow clients are held for good"] if open_still else []
        trial.check_livez()
        trial.compare()
        finish(trial)
    return figures


def hang_up(folder: Path, seed: int) -> Figures:
    """A client ends its connection in the middle of an upload, at a random place, again and again"""
    figures = Figures("hang-up", f"{HANG_UPS} uploads broken off at random places, by FIN or by RST")
    with open_stage(folder, mirror=False) as stage, stage.serving() as server:
        with Trial(figures, server.url, seed=seed) as trial, trial.fault():
            root = break_uploads_off(stage, server, trial, HANG_UPS, random.Random(seed))
        trial.check_livez()
        trial.compare()
        finish(trial)
        pool_is_whole(server, stage, figures, root)
    return figures


def break_uploads_off(stage: Stage, server: Server, trial: Trial, times: int, dice: random.Random) -> str:
    """And see that nothing is left of them; the root of the run they were meant for."""
    figures, root = trial.figures, _new_root(server)
    api = psutil.Process(server.child.pid)
    memory_mb, files = 0.0, 0
    for number in range(times):
        _break_off(server, f"{FILES}/{root}/broken/f{number}.bin", dice)
        if number == times // 4:
            memory_mb, files = api.memory_info().rss / 1e6, api.num_fds()
    trial.until(lambda: not _left(stage), 30, "end of what was under way")
    grown_mb, more_files = api.memory_info().rss / 1e6 - memory_mb, api.num_fds() - files
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
        listed = http.get(FILES, params={"path": f"{root}/broken"}).json().get("files", [])
    figures.wrong += [f"{len(listed)} partial artifacts can be seen: {listed[:2]}"] if listed else []
    figures.wrong += [f"memory grew by {grown_mb:.0f} MB"] if grown_mb > GROWTH_MB else []
    figures.wrong += [f"{more_files} more open files"] if more_files > 20 else []
    figures.notes.append(
        f"memory grew by {grown_mb:.1f} MB, open files by {more_files}, {len(_left(stage))} unfinished files left, "
        f"{len(listed)} partial artifacts visible"
    )
    return root


def _nobody_else_waits(trial: Trial, meanwhile: Callable[[], None] = lambda: None) -> None:
    """While connections are held, whoever has something to say is served."""
    time.sleep(0.5)
    deadline = time.monotonic() + HELD_S
    before = sum(len(writer.answers) for writer in trial.writers)
    while time.monotonic() < deadline:
        meanwhile()
        time.sleep(0.5)
    served = sum(len(writer.answers) for writer in trial.writers) - before
    trial.figures.notes.append(f"{served / HELD_S:,.0f} writes a second beside them")
    longest = max(writer.longest_s for writer in trial.writers)
    if served < len(trial.writers) or longest > SLOWEST_S:
        trial.figures.wrong.append(f"{served} writes in {HELD_S:.0f} s, the slowest took {longest:.1f} s")


def _connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _request(method: str, path: str, *headers: str, ends: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + ("\r\n\r\n" if ends else "")).encode()


def _drip(made: list[socket.socket]) -> None:
    for each in made:
        with suppress(OSError):
            each.sendall(b"x")


def _is_open(each: socket.socket) -> bool:
    """After whatever it was told."""
    each.setblocking(False)
    try:
        while each.recv(65536):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _new_root(server: Server) -> str:
    """Of a run in another experiment than that of the writers."""
    answer = httpx.post(f"{server.url}{API}/runs/create", json={"experiment_id": "0"}, trust_env=False, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["run"]["info"]["artifact_uri"]).removeprefix("mlflow-artifacts:/")


def _break_off(server: Server, path: str, dice: random.Random) -> None:
    """Announce a file, send a part of it, and go: by FIN, or by RST as of a process that was killed."""
    announced = dice.choice([10, 10_000, 200_000, LARGEST_BYTES])
    sent = dice.randrange(announced)
    made = _connect(server)
    with suppress(OSError):
        made.sendall(_request("PUT", path, f"Content-Length: {announced}"))
        made.sendall(dice.randbytes(sent))
    if dice.random() < 0.5:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()


def _left(stage: Stage) -> list[str]:
    return [file.name for file in (stage.folder / "data" / "artifacts" / ".uploads").iterdir()]


def pool_is_whole(server: Server, stage: Stage, figures: Figures, root: str) -> None:
    """As many at once as there are connections are served, and Postgres has no more of them than there should be."""
    content = b"whole"

    def ask(number: int) -> None:
        path = f"{server.url}{FILES}/{root}/whole/{number}"
        with httpx.Client(trust_env=False, timeout=30) as http:
            for _ in range(5):
                statuses.append(http.put(path, content=content).status_code)
                statuses.append(http.get(f"{server.url}{API}/experiments/get?experiment_id=0").status_code)

    statuses: list[int] = []
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(statuses) != 200 or set(statuses) != {200}:
        figures.wrong.append(f"not all connections of the pool serve: {len(statuses)} answers, {set(statuses)}")
    sessions = len(asyncio.run(stage.postgres.sessions(DATABASE)))
    figures.notes.append(f"{sessions} sessions at Postgres in the end")
    if sessions > 20:  # 10 for requests, 4 hot, 1 for probes, those that listen, and this look
        figures.wrong.append(f"{sessions} sessions at Postgres")
