"""Processes of the product that start in milliseconds: forked from one that has imported everything, and really killed.

Run as a program this is the parent of them all: it reads what to start, a JSON line each, and tells who was born and
who has ended. Each child runs the command line as an operator would, with an environment of its own.
"""

import asyncio
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from runmirror.__main__ import main as command_line
from runmirror.app import create_app
from runmirror.mirror import worker  # noqa: F401 - what the command imports only when it runs
from runmirror.settings import Settings
from runmirror.supervisor import stop_with_parent  # noqa: F401
from tests.chaos import crash_points


@dataclass
class Child:
    """A process of the product; `ended` is set when it is gone."""

    pid: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0

    def signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended.wait()

    async def stop(self, patience_s: float = 20.0) -> None:
        """As an operator: SIGTERM, and it ends by itself."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience_s):
                await self.ended.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"process {self.pid} did not stop at SIGTERM") from None


class Nursery:
    """Starts children; as a context it ends with all of them dead."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._children: dict[int, Child] = {}
        self._ended_early: dict[int, int] = {}
        self._listening: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.nursery", stdin=PIPE, stdout=PIPE
        )
        self._listening = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._listening is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listening

    async def start(
        self, run: str | int, environment: Mapping[str, str], log: Path, *, die: tuple[str, int] | None = None
    ) -> Child:
        """Run a command of `runmirror`, or the API at a port; `die`: at which step boundary it kills itself."""
        assert self._process is not None
        assert self._process.stdin is not None
        wanted = {"run": run, "environment": dict(environment), "log": str(log), "die": die}
        async with self._turn:
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            await self._process.stdin.drain()
            pid = await self._born.get()
        child = Child(pid)
        if pid in self._ended_early:
            child.status = self._ended_early.pop(pid)
            child.ended.set()
        else:
            self._children[pid] = child
        return child

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "born" in told:
                self._born.put_nowait(told["born"])
            elif (child := self._children.pop(told["ended"], None)) is not None:
                child.status = told["status"]
                child.ended.set()
            else:
                self._ended_early[told["ended"]] = told["status"]


def main() -> None:
    """The parent: single-threaded and without an event loop, so that a fork is harmless."""
    _import_everything()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(woken, selectors.EVENT_READ)
    children: set[int] = set()
    rest = b""
    while True:
        ready = {key.fd for key, _ in selector.select()}
        if woken in ready:
            os.read(woken, 4096)
            _reap(children)
        if 0 in ready:
            read = os.read(0, 65536)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                pid = _bear(json.loads(line), wake)
                children.add(pid)
                _say({"born": pid})
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while children:
        _reap(children)


def _import_everything() -> None:
    """And build the application once: what that leaves in memory, every child begins with."""
    auto_loop_factory()
    create_app(Settings(database_url="postgresql://nowhere/none"), "postgresql://nowhere/none")
    gc.collect()
    gc.freeze()


def _serve(port: int) -> None:
    """What `runmirror serve --no-mirror` does once the database is at the newest schema."""
    uvicorn.run(
        "runmirror.asgi:create", factory=True, host="127.0.0.1", port=port, log_level="warning", access_log=False,
        timeout_graceful_shutdown=5, server_header=False,
    )  # fmt: skip


def _reap(children: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            children.clear()
            return
        if pid == 0:
            return
        children.discard(pid)
        _say({"ended": pid, "status": status})


def _say(told: dict[str, Any]) -> None:
    with suppress(BrokenPipeError):
        os.write(1, json.dumps(told).encode() + b"\n")


def _bear(wanted: dict[str, Any], wake: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        sink = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for end, to in ((nothing, 0), (sink, 1), (sink, 2)):
            os.dup2(end, to)
        os.close(wake)
        os.environ.clear()
        os.environ.update(wanted["environment"])
        if wanted["die"]:
            crash_points.install(*wanted["die"])
        if isinstance(wanted["run"], int):
            _serve(wanted["run"])
        else:
            command_line([wanted["run"]], standalone_mode=False)
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last word of this process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
