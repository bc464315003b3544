"""However the demo ends, nothing of it goes on running, and its folder is gone."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.server import clean_environment


@contextmanager
def running_demo(*flags: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "runmirror", "demo", *flags]
    with subprocess.Popen(
        command,
        env=clean_environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as demo:
        try:
            yield demo
        finally:
            demo.terminate()


def run_until(demo: subprocess.Popen[str], line_begins: str, act: Callable[[Path], None]) -> tuple[str, Path]:
    """What the demo wrote, with `act(its folder)` done when a line began so, and the folder."""
    assert demo.stdout is not None
    written, folder = "", Path("/nowhere")
    for line in demo.stdout:
        written += line
        if found := re.search(r"their data is in (\S+)", line):
            folder = Path(found[1])
        if line.startswith(line_begins):
            act(folder)
    demo.wait(60)
    return written, folder


def left_behind(folder: Path) -> list[str]:
    """The processes that still have the demo's folder in their command line."""
    gone = (psutil.NoSuchProcess, psutil.ZombieProcess)
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
        except gone:
            continue
        if str(folder) in command:
            found.append(command)
    return found


@pytest.mark.parametrize("when", ["1  starting", "   workspace", "2  training"])
def test_two_signals_at_once_end_everything_at_any_moment(when: str) -> None:
    with running_demo("--once") as demo:

        def interrupt(_: Path) -> None:
            os.kill(demo.pid, signal.SIGTERM)
            os.kill(demo.pid, signal.SIGINT)

        written, folder = run_until(demo, when, interrupt)
    assert demo.returncode in {128 + signal.SIGINT, 128 + signal.SIGTERM}, written
    assert "before the comparison was done" in written
    assert left_behind(folder) == []
    assert not folder.exists()


def test_a_server_that_dies_ends_the_demo_with_its_last_words() -> None:
    def kill_server(folder: Path) -> None:
        serving = ("serve", str(folder / "data"))
        for process in psutil.process_iter(["cmdline"]):
            if all(word in (process.info["cmdline"] or ()) for word in serving):
                process.kill()

    with running_demo("--once") as demo:
        written, folder = run_until(demo, "2  training", kill_server)
    assert demo.returncode == 1, written
    assert "server ended with exit code -9; its last lines:" in written
    assert left_behind(folder) == []
    assert not folder.exists()


def test_ctrl_c_after_the_comparison_keeps_its_verdict() -> None:
    with running_demo() as demo:
        written, folder = run_until(demo, "Open http://127.0.0.1:", lambda _: os.kill(demo.pid, signal.SIGINT))
    assert demo.returncode == 0, written
    assert "both sides are equal" in written
    assert left_behind(folder) == []
    assert not folder.exists()


def test_a_taken_port_is_refused_before_anything_is_logged_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with running_demo("--once", "--port", str(port)) as demo:
            written, folder = run_until(demo, "nothing", lambda _: None)
    assert demo.returncode == 1
    assert f"runmirror cannot listen on port {port} of 127.0.0.1: Address already in use" in written
    assert "2  training" not in written
    assert not folder.exists()
