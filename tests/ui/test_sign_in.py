"""Signing in and out in a real browser: by a pasted token, at an identity provider, and from a page elsewhere."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.auth.provider import AUDIENCE, CLIENT, CLIENT_SECRET, Provider, running
from tests.server import Server, clean_environment, free_port, serving
from tests.ui.browser import SCREENSHOTS

PREFIX = "/kiln"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as made:
        made.person = {"oid": "0f0e0d", "roles": ["runmirror.admin"]}
        yield made


@pytest.fixture(scope="module")
def guarded(provider: Provider) -> Iterator[tuple[Server, str]]:
    """A server where browsers sign in either way, and a token of it."""
    port = free_port()
    provider.redirects = (f"http://127.0.0.1:{port}{PREFIX}/signin/callback",)
    settings = {
        "RUNMIRROR_AUTH": "entra", "RUNMIRROR_OIDC_ISSUER": provider.url, "RUNMIRROR_OIDC_AUDIENCE": AUDIENCE,
        "RUNMIRROR_OIDC_CLIENT_ID": CLIENT, "RUNMIRROR_OIDC_CLIENT_SECRET": CLIENT_SECRET,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="runmirror-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "runmirror", "token", "create", "ann", "--admin", "--data-dir", folder]
        token = subprocess.check_output(command, env=clean_environment({}), text=True).strip()
        arguments = ("--no-mirror", "--static-prefix", PREFIX)
        with serving(Path(folder), *arguments, port=port, **settings) as server:
            yield server, token


def accessible(page: Page) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png")


def test_a_browser_signs_in_and_out_and_comes_to_the_page_it_asked_for(
    browser: Browser, guarded: tuple[Server, str]
) -> None:
    server, token = guarded
    site = server.url + PREFIX
    with closing(browser.new_context(viewport={"width": 1200, "height": 800})) as context:
        page = context.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(f"{site}/#/experiments/0/runs")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        accessible(page)
        picture(page, "sign-in")
        page.get_by_label("Token or password").fill("rmt_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("no token that is good")
        accessible(page)
        picture(page, "sign-in-refused")
        assert [text for text in problems if "401" not in text] == []
        page.get_by_label("Token or password").fill(token)
        page.get_by_role("button", name="Sign in").click()
        # What stands behind the # is never sent; the browser carries it along.
        page.wait_for_url(f"{site}/#/experiments/0/runs**")
        expect(page.get_by_text("Default").locator("visible=true").first).to_be_visible()
        page.goto(f"{site}/mirror?refresh=0")
        expect(page.get_by_text("ann", exact=True)).to_be_visible()
        accessible(page)
        picture(page, "signed-in")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url(f"{site}/signin")
        assert context.cookies() == []
        page.goto(f"{site}/mirror/runs")
        page.get_by_role("link", name="Sign in with your organisation").click()
        page.wait_for_url(f"{site}/mirror/runs")
        expect(page.get_by_text("ann@example.org")).to_be_visible()
        [cookie] = context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (
            "runmirror_session", True, "Lax", PREFIX,
        )  # fmt: skip


def test_a_page_elsewhere_can_neither_act_nor_read_as_who_is_signed_in(
    browser: Browser, guarded: tuple[Server, str], provider: Provider
) -> None:
    """The page is of another port of this machine: for SameSite the same site, so that the cookie is sent."""
    server, token = guarded
    site = server.url + PREFIX
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"{site}/mirror")
        page.get_by_label("Token or password").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{site}/mirror")
        create, listed = f"{site}/api/2.0/mlflow/experiments/create", f"{site}/api/2.0/mlflow/users/current"
        ask = "([url, options]) => fetch(url, {credentials: 'include', ...options}).then(r => r.status)"
        as_json = {"method": "POST", "headers": {"Content-Type": "application/json"}}

        def posted(name: str) -> list[object]:
            return [create, {**as_json, "body": f'{{"name": "{name}"}}'}]

        page.goto(f"{site}/version")  # whose policy lets a page ask
        assert page.evaluate(ask, posted("made-here")) == 200
        page.goto(f"{provider.url}/keys")
        assert page.evaluate(ask, posted("made-elsewhere")) == 403
        assert page.evaluate(ask, [listed, {}]) == 401
        # A form that the page has the browser send, to sign its visitor out.
        with page.expect_navigation() as sent:
            page.evaluate(
                """url => {
                    const form = document.createElement("form");
                    form.method = "post"; form.action = url;
                    document.body.appendChild(form).submit();
                }""",
                f"{site}/signout",
            )
        assert sent.value is not None
        assert sent.value.status == 403
        page.goto(f"{site}/mirror")
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.goto(f"{site}/version")
        names = page.evaluate(
            "url => fetch(url).then(r => r.json()).then(told => told.experiments.map(one => one.name))",
            f"{site}/ajax-api/2.0/mlflow/experiments/search?max_results=10",
        )
        assert "made-here" in names
        assert "made-elsewhere" not in names
