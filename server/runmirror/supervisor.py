"""The worker beside the server: `serve` keeps one running in a process of its own, so that it never slows a request."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

log = logging.getLogger(__name__)

_PARENT = "RUNMIRROR_PARENT_PID"
_RESTART_PAUSE_S = 2.0
_DRAIN_S = 30.0


@contextmanager
def worker_process(environment: Mapping[str, str]) -> Iterator[None]:
    """Run `runmirror worker` until the block ends, starting it again if it dies."""
    stopping = threading.Event()
    lock = threading.Lock()
    command = [sys.executable, "-m", "runmirror", "worker"]
    environment = {**environment, _PARENT: str(os.getpid())}
    child = subprocess.Popen(command, env=environment)  # noqa: S603 - our own interpreter and module

    def keep_alive() -> None:
        nonlocal child
        while not stopping.is_set():
            child.wait()
            if stopping.wait(_RESTART_PAUSE_S):
                return
            log.warning("the mirror worker ended with %s; starting it again", child.returncode)
            with lock:
                if not stopping.is_set():
                    child = subprocess.Popen(command, env=environment)  # noqa: S603 - as above

    watcher = threading.Thread(target=keep_alive, name="worker-supervisor", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        with lock:
            stopping.set()
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(_DRAIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def stop_with_parent() -> None:
    """In the worker: end when the server that started us is gone, even if it was killed without a word."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            threading.Event().wait(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
