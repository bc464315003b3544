"""A real browser over MLflow's pages: what a page asked for, what failed, and what it complained about."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, sync_playwright

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
MISSING = "no Chromium on this machine: `make browser` (Debian: apt-get install -y chromium)"
SETTLE_DEADLINE_S = 40.0
QUIET_S = 0.8  # how long a page asks for nothing before it counts as loaded
WORKER = "telemetry-worker"  # its script is never reported as loaded
TOASTS = "[role=alert], [class*=notification-notice], [aria-label^=Notifications] li"
SCREENSHOTS = os.environ.get("RUNMIRROR_TEST_SCREENSHOTS")  # a folder, for people who want to look


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; without one the test is skipped, or fails where RUNMIRROR_TEST_BROWSER=required."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        if os.environ.get("RUNMIRROR_TEST_BROWSER") == "required":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Filled:
    """A server with the data of fill.py in it, and a browser's memory of its own for it."""

    name: str
    url: str
    experiment: str
    runs: list[str]
    model: str
    trace: str
    dataset: str
    context: BrowserContext


@dataclass
class Visit:
    """A page that has come to rest.

    `asked` are `(method, path)` below the server's address, `failures` `(status, method, path)` of what it refused, and
    `strays` answers from anywhere else.
    """

    page: Page
    failures: set[tuple[int, str, str]] = field(default_factory=set)
    asked: set[tuple[str, str]] = field(default_factory=set)
    strays: set[str] = field(default_factory=set)
    pending: set[Request] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)

    @property
    def toasts(self) -> list[str]:
        return self.page.locator(TOASTS).all_inner_texts()

    def picture(self, name: str) -> None:
        if SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


@contextmanager
def visiting(site: Filled, path: str) -> Iterator[Visit]:
    """Open `path` of a server and wait until the page asks for nothing more."""
    page = site.context.new_page()
    visit = Visit(page)

    def begun(request: Request) -> None:
        if WORKER not in request.url:
            visit.pending.add(request)

    def ended(request: Request) -> None:
        visit.pending.discard(request)

    def answered(response: Response) -> None:
        place = urlsplit(response.url)
        if not response.url.startswith(site.url + "/"):
            visit.strays.add(response.url)
            return
        path = place.path.removeprefix(urlsplit(site.url).path)
        for name, value in {
            "<experiment>": f"/{site.experiment}/",
            "<model>": site.model,
            "<trace>": site.trace,
            "<dataset>": site.dataset,
        }.items():
            path = path.replace(value, name)
        visit.asked.add((response.request.method, path))
        if response.status >= 400:
            visit.failures.add((response.status, response.request.method, path))

    page.on("request", begun)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    page.on("response", answered)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.goto(site.url + path)
    _settle(visit)
    try:
        yield visit
    finally:
        page.close()


def _settle(visit: Visit) -> None:
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        visit.page.wait_for_timeout(50)  # where the browser's events come in
        if visit.pending:
            quiet_since = time.monotonic()
        if time.monotonic() > deadline:
            raise AssertionError(f"the page still waits for {[request.url for request in visit.pending]}")
