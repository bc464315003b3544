"""The dashboard in a real browser: quiet, self-contained, usable by keyboard, in light and dark, and on a phone."""

import asyncio
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from runmirror.artifacts.store import create_store
from runmirror.mirror import pulse, status
from runmirror.mirror.link import Link, write_link
from runmirror.mirror.target import TargetRejected
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.conftest import TEMPLATE
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Failure, MemoryTarget
from tests.server import serving
from tests.ui.browser import chromium

REFUSAL = (
    "BadRequest: <b>UserError</b> The value of tag 'glaze' contains characters that are not allowed here "
    "(HTTP 400 to POST mlflow/runs/log-batch, request id 5f1c7a52-9f3e-4b1e-8a37-0d5c2b9e6f10) " + "x" * 80
)
PREFIX = "/kiln"
_numbers = itertools.count()


class Seeded:
    """A server with a mirrored run, one that overflows, and quarantined ones named after the tests that replay them."""

    def __init__(self, url: str, runs: dict[str, str]) -> None:
        self.url = url
        self.runs = runs

    def state(self, run_id: str) -> str:
        answer = httpx.get(f"{self.url}/api/runmirror/v1/runs/{run_id}/mirror", trust_env=False)
        told: str = answer.json()["state"]
        return told


async def new_database(postgres: str) -> str:
    name = f"dashboard_{next(_numbers)}"
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
    await admin.dispose()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


async def fill(database_url: str, folder: Path) -> dict[str, str]:
    """A worker mirrors one run, is refused others, and is gone when an outage begins."""
    settings = Settings(database_url=database_url, data_dir=folder, mirror_settle=timedelta(0))
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    store = create_store(settings)
    source, target = Source(engine, store), MemoryTarget()
    worker = Worker(settings, engine, store, target.open)
    async with engine.begin() as connection:
        await write_link(connection, Link(WORKSPACE_ID, portal_base="https://portal.example/?wsid=memory"))
    mirrored = await source.run("a pot")
    await mirrored.log(metrics=points("heat", 50), params={"cone": "6"})
    await mirrored.upload("glaze.txt", b"g" * 3000)
    much = await source.run("much")
    await much.log(metrics=points("m", 9), params={f"p{n:03}": "v" for n in range(260)}, tags={"notes": "clay " * 300})
    await much.finish()
    poison = {name: await source.run(name) for name in ("by keyboard", "by mouse", "while we look", "from elsewhere")}
    for run in poison.values():
        await run.log(metrics=points("m", 1))
        refusal = TargetRejected(REFUSAL)
        target.failures.append(Failure("log_batch", refusal, times=2, run_id=run.run_id.hex))
    await worker.drain()
    async with engine.begin() as connection:
        await pulse.beat(connection, worker.worker_id)
        await status.note_outage(connection, "403 AuthorizationFailed: the identity may not write")
        await connection.execute(
            text("""
                INSERT INTO mirror_links (name, is_default, workspace_id, portal_base, last_contact_at)
                VALUES ('archive', false, '/subscriptions/s/resourceGroups/r/providers/p/workspaces/archive', NULL,
                    now())""")
        )
        await connection.execute(
            text("""
                INSERT INTO mirror_lag SELECT date_trunc('minute', now()) - interval '1 minute' * n, n
                FROM generate_series(1, 20) AS numbers (n)""")
        )
    await source.run("waiting")
    await store.close()
    await engine.dispose()
    return {name: run.run_id.hex for name, run in {**poison, "mirrored": mirrored, "much": much}.items()}


@pytest.fixture(scope="module")
def seeded(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    folder = tmp_path_factory.mktemp("dashboard")
    database_url = asyncio.run(new_database(postgres))
    runs = asyncio.run(fill(database_url, folder))
    arguments = ("--no-mirror", "--static-prefix", PREFIX)
    with serving(folder, *arguments, RUNMIRROR_DATABASE_URL=database_url) as server:
        yield Seeded(server.url + PREFIX, runs)


@pytest.fixture(scope="module")
def browser(seeded: Seeded) -> Iterator[Browser]:
    """After the seeding: the browser's driver holds the thread's event loop."""
    with chromium() as started:
        yield started


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1200, colours: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """A page that must stay quiet: no message in the console, no error, no request that leaves the server or fails."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
    page = context.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("requestfailed", lambda request: noise.append(f"failed: {request.url}"))
    page.on("response", lambda answer: noise.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None)
    home = url[: url.index(PREFIX) + len(PREFIX)]
    page.on("request", lambda asked: None if asked.url.startswith(home) else noise.append(f"stray: {asked.url}"))
    page.goto(url)
    try:
        yield page
        assert noise == []
    finally:
        context.close()


def pages(seeded: Seeded) -> dict[str, str]:
    return {
        "overview": "/mirror?refresh=0",
        "runs": "/mirror/runs",
        "search": "/mirror/runs?q=key&state=quarantined",
        "mirrored": f"/mirror/runs/{seeded.runs['mirrored']}",
        "overflowing": f"/mirror/runs/{seeded.runs['much']}",
        "quarantined": f"/mirror/runs/{seeded.runs['by mouse']}",
    }


@pytest.mark.parametrize("name", ["overview", "runs", "search", "mirrored", "overflowing", "quarantined"])
def test_a_page_is_quiet_and_can_be_heard_tabbed_and_seen(seeded: Seeded, browser: Browser, name: str) -> None:
    url = seeded.url + pages(seeded)[name]
    colours: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in colours:
        with opened(browser, url, colours=scheme) as page:
            judged = Axe().run(page)
            assert judged.violations_count == 0, judged.generate_report()
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {
                "light": "rgb(245, 247, 250)", "dark": "rgb(15, 20, 26)",
            }[scheme]  # fmt: skip
            if folder := os.environ.get("RUNMIRROR_TEST_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"mirror-{name}-{scheme}.png", full_page=True)
    with opened(browser, url, width=360) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        if folder := os.environ.get("RUNMIRROR_TEST_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"mirror-{name}-phone.png", full_page=True)


def test_the_overview_shows_the_outage_and_draws_the_last_hour(seeded: Seeded, browser: Browser) -> None:
    with opened(browser, f"{seeded.url}/mirror?refresh=0") as page:
        expect(page.get_by_role("alert").first).to_contain_text("403 AuthorizationFailed")
        expect(page.get_by_role("link", name="memory in the studio")).to_have_attribute(
            "href", "https://portal.example/?wsid=memory"
        )
        lag = page.get_by_role("img", name="Lag by minute")
        expect(lag.locator("rect")).to_have_count(60)
        heights = [box["height"] for bar in lag.locator("rect.bar").all() if (box := bar.bounding_box())]
        picture = lag.bounding_box()
        assert picture is not None
        assert max(heights) == pytest.approx(picture["height"], abs=2)
        assert len(heights) >= 20
        sent = page.get_by_role("img", name="Metric points by minute").locator("rect.bar")
        highest = max(box["height"] for bar in sent.all() if (box := bar.bounding_box()))
        assert highest == pytest.approx(picture["height"], abs=2)


def test_the_keyboard_reaches_a_button_and_replays_a_quarantined_run(seeded: Seeded, browser: Browser) -> None:
    run_id = seeded.runs["by keyboard"]
    with opened(browser, f"{seeded.url}/mirror?refresh=0") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the contents"
        page.keyboard.press("Enter")
        for _ in range(60):
            page.keyboard.press("Tab")
            if "by keyboard" in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("The run is due now")
        assert page.url.startswith(f"{seeded.url}/mirror/runs/{run_id}?")
    assert seeded.state(run_id) == "due"


def test_a_run_is_searched_and_replayed_from_its_own_page(seeded: Seeded, browser: Browser) -> None:
    run_id = seeded.runs["by mouse"]
    with opened(browser, f"{seeded.url}/mirror") as page:
        page.get_by_role("link", name="Runs", exact=True).click()
        page.get_by_label("Name, experiment, or beginning of the id").fill("MOUSE")
        page.get_by_label("State").select_option("quarantined")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("link", name="by mouse", exact=True).click()
        expect(page.locator("#last-error")).to_contain_text("<b>UserError</b>")
        page.get_by_role("button", name="Replay: by mouse").click()
        expect(page.get_by_role("status")).to_contain_text("The run is due now")
    assert seeded.state(run_id) == "due"


def test_a_form_on_another_site_presses_no_button(seeded: Seeded, browser: Browser) -> None:
    run_id = seeded.runs["from elsewhere"]
    context = browser.new_context()
    page = context.new_page()
    page.goto(
        f"data:text/html,<form method=post action={seeded.url}/mirror/runs/{run_id}/retry><button>win</button></form>"
    )
    with page.expect_response("**/retry") as answered:
        page.get_by_role("button", name="win").click()
    assert answered.value.status == 403
    assert "PERMISSION_DENIED" in answered.value.text()
    context.close()
    assert seeded.state(run_id) == "quarantined"


def test_a_page_renews_itself_until_it_is_told_to_stop(seeded: Seeded, browser: Browser) -> None:
    run_id = seeded.runs["while we look"]
    with opened(browser, f"{seeded.url}/mirror?refresh=1") as page:
        row = page.locator("#failures tr", has_text="while we look")
        expect(row).to_contain_text("quarantined")
        pressed = httpx.post(
            f"{seeded.url}/mirror/runs/{run_id}/retry", headers={"Sec-Fetch-Site": "same-origin"}, trust_env=False
        )
        assert pressed.status_code == 303
        expect(row).to_contain_text("failing, tried again", timeout=10_000)
        page.get_by_role("link", name="stop").click()
        expect(page.get_by_role("link", name="start")).to_be_visible()
        assert page.locator("meta[http-equiv=refresh]").count() == 0
