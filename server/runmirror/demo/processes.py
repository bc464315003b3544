"""The programs that the demo starts: each with its output in files, all of them ended when the demo ends."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Self

Say = Callable[[str], None]

_POLL_S = 0.1
_PROGRESS_S = 2.0
_LAST_BREATH_S = 1.0
_STOP_S = 45.0  # the server gives a request in flight 25 seconds, and its worker's drain some more
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What a program needs of its surroundings, and nothing by which it finds Azure, a proxy or another tracking server.
_KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR",
    "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH",
)  # fmt: skip


class Stopped(BaseException):
    """Ctrl-C, or the system's wish that we end; not an `Exception`, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number  # as a shell says it


class ChildFailed(Exception):
    """A program ended, or did not do its part in time; the message has the last lines that it wrote."""


def plain_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The few variables a program of the demo gets from the outside."""
    kept = {name: environ[name] for name in _KEPT if name in environ}
    return {**kept, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"}


class Child:
    """One running program. It has a session of its own: Ctrl-C reaches only us, and we end everybody in order."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, given: str = ""
    ) -> None:
        self.name = name
        self._output, self._errors = folder / f"{name}.out.log", folder / f"{name}.err.log"
        stdin = folder / f"{name}.in"
        stdin.touch(mode=0o600)  # it may hold a secret
        stdin.write_text(given, encoding="utf-8")
        with stdin.open("rb") as source, self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                command, env=dict(environment), stdin=source, stdout=output, stderr=errors, start_new_session=True
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raises `ChildFailed` when the program is not there any more."""
        if not self.running:
            raise self.failure(f"ended with exit code {self._process.returncode}")

    def failure(self, what: str) -> ChildFailed:
        """What happened to this program, and what it wrote before."""
        written = [*self.output.splitlines(), *self._errors.read_text(encoding="utf-8", errors="replace").splitlines()]
        shown = "".join(f"\n    | {line}" for line in written[-20:])
        return ChildFailed(f"{self.name} {what}" + (f"; its last lines:{shown}" if shown else " and wrote nothing"))

    def lines(self) -> Iterator[str | None]:
        """The lines of its output as they come, None whenever it has not written anything for a moment.

        Ends with the program; raises `ChildFailed` unless it succeeded.
        """
        with self._output.open(encoding="utf-8", errors="replace") as written:
            part = ""
            while True:
                last = not self.running
                part += written.read()
                *whole, part = part.split("\n")
                yield from whole
                if last:
                    break
                if not whole:
                    yield None
                    time.sleep(_POLL_S)
        if part:
            yield part
        if self._process.returncode != 0:
            self.check()

    def stop(self, say: Say) -> None:
        """End it, kindly at first."""
        if not self.running:
            return  # and its number may be somebody else's by now
        self._process.terminate()
        progress = Progress(say, f"{self.name} is stopping")
        while self.running and progress.passed_s < _STOP_S:
            progress.tell()
            time.sleep(_POLL_S)
        with suppress(ProcessLookupError):  # what is left of it and of those it started: the session is ours alone
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Children:
    """All programs of the demo: a block in which signals raise `Stopped`, and after which nothing runs any more."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder = folder
        self._say = say
        self._ending = ExitStack()
        self._watched: list[Child] = []
        self._stopping = False
        self._starting = False
        self._asked: Stopped | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop_once) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        try:
            self._ending.close()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        given: str = "",
        essential: bool = False,
    ) -> Child:
        """Start a program with `given` on its standard input; without an `essential` one nothing can go on."""
        with self._undisturbed():
            child = Child(name, command, environment, self._folder, given)
            self._ending.callback(child.stop, self._say)
        if essential:
            self._watched.append(child)
        return child

    def at_end(self, act: Callable[[], None]) -> None:
        """Do this after everything has ended that is started from now on."""
        self._ending.callback(act)

    def check(self) -> None:
        """Raises `ChildFailed` when an essential program has ended."""
        for child in self._watched:
            child.check()

    def look_for_the_dead(self) -> None:
        """After a failure: `check`, for a moment, because a connection breaks before its program is seen to be gone."""
        deadline = time.monotonic() + _LAST_BREATH_S
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_S)

    def follow(self, child: Child, doing: str) -> str:
        """Wait for the end of `child`, saying what it writes, or that it still works; the answer is its last line.

        Lines of JSON are for us, and not said.
        """
        progress = Progress(self._say, doing)
        last = ""
        for line in child.lines():
            if line is None:
                self.check()
                progress.tell()
                continue
            last = line
            if line and not line.startswith("{"):
                self._say(f"    {line}")
                progress.restart()
        return last

    def wait(self, ready: Callable[[], bool], child: Child, doing: str, deadline_s: float) -> None:
        """Poll `ready`. Raises `ChildFailed` when `child` or an essential program ends, or the time is over."""
        progress = Progress(self._say, doing)
        while not ready():
            child.check()
            self.check()
            if progress.passed_s > deadline_s:
                raise child.failure(f"was not ready after {deadline_s:.0f} s ({doing})")
            progress.tell()
            time.sleep(_POLL_S)

    def serve(self) -> None:
        """Wait until somebody stops us (`Stopped`) or an essential program ends (`ChildFailed`)."""
        while True:
            self.check()
            time.sleep(_POLL_S)

    def _stop_once(self, number: int, _: FrameType | None) -> None:
        """The first signal ends the demo; another one must not interrupt the stopping, or half of it stays behind."""
        if self._stopping:
            return
        self._stopping = True
        self._asked = Stopped(number)
        if not self._starting:
            raise self._asked

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """A signal waits for the end of the block: a program that runs but is not noted yet would stay behind."""
        self._starting = True
        try:
            yield
        finally:
            self._starting = False
        if self._asked is not None:
            raise self._asked


class Progress:
    """Says every two seconds that something is still going on."""

    def __init__(self, say: Say, doing: str) -> None:
        self._say, self._doing = say, doing
        self._began = self._said = time.monotonic()

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._began

    def restart(self) -> None:
        self._said = time.monotonic()

    def tell(self, more: str = "") -> None:
        """Speak up, when the last word is two seconds old; `more` is how far it has come."""
        if time.monotonic() - self._said >= _PROGRESS_S:
            self._say(f"    … {self._doing} ({self.passed_s:.0f} s{more and ', '}{more})")
            self.restart()
