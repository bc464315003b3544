"""`azurite`: a real Blob server from npm, one per test process."""

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from filelock import FileLock

VERSION = "3.37.0"
HOME = Path(__file__).resolve().parents[2] / ".azurite"
PROGRAM = HOME / "node_modules" / ".bin" / "azurite-blob"
START_DEADLINE_S = 60

# The account every Azurite has; the key is published in its documentation.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a running Azurite Blob service on loopback."""
    with start_azurite(tmp_path_factory.mktemp("azurite")) as endpoint:
        yield f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


@contextmanager
def start_azurite(folder: Path, *options: str, port: int = 0) -> Iterator[str]:
    """The address of the account's Blob service, at a free port or at this one."""
    install()
    output = folder / "output.txt"
    command = [
        str(PROGRAM), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder),
        "--skipApiVersionCheck", "--silent", "--disableTelemetry", *options,
    ]  # fmt: skip
    with output.open("wb") as sink:
        child = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        yield f"{_address(child, output)}/{ACCOUNT}"
    finally:
        child.kill()  # it has nothing to keep, and would wait for idle connections at a gentler word
        child.wait()


def install() -> None:
    """Put Azurite where it is started from, unless it is there."""
    HOME.mkdir(exist_ok=True)
    with FileLock(HOME / ".lock"):
        if not PROGRAM.exists():
            subprocess.run(
                ["npm", "install", "--prefix", str(HOME), "--no-save", "--no-audit", "--no-fund", f"azurite@{VERSION}"],
                check=True,
            )


def _address(child: subprocess.Popen[bytes], output: Path) -> str:
    """What Azurite says it listens at: it chose the port itself."""
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline and child.poll() is None:
        for line in output.read_text().splitlines():
            if found := re.search(r"successfully listen.*?(https?://\S+)", line):
                return found[1]
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.1)  # the pause between two looks, cut short when the child ends
    raise AssertionError(f"Azurite did not come up (exit code {child.poll()}):\n{output.read_text()[-2000:]}")
