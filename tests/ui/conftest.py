"""`mlflow server` and ours with the same data, and a browser over both."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.conformance.servers import mlflow_server
from tests.server import clean_environment, serving
from tests.ui.browser import Filled, chromium

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser per module: its driver holds the thread's event loop, so it must end before async tests run."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def ours(browser: Browser) -> Iterator[Filled]:
    """Our server below a static prefix, as behind a proxy: what holds there holds without one."""
    with (
        tempfile.TemporaryDirectory(prefix="runmirror-", ignore_cleanup_errors=True) as folder,
        serving(Path(folder), "--no-mirror", "--static-prefix", "/kiln") as server,
    ):
        yield filled(browser, "ours", f"{server.url}/kiln")


@pytest.fixture(scope="module")
def theirs(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield filled(browser, "mlflow", url)


def filled(browser: Browser, name: str, url: str) -> Filled:
    """Log the data of fill.py through the plain client."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "ids.json"
        command = [sys.executable, "-W", "ignore", "-m", "tests.ui.fill", url, str(answer)]
        done = subprocess.run(
            command, env=clean_environment({}), cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        ids = json.loads(answer.read_text(encoding="utf-8"))
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    return Filled(name, url, context=context, **ids)
