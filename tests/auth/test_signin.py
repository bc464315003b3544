"""Browsers sign in and out: what they are sent, what their cookie is good for, and what somebody else could try."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.settings import Settings
from runmirror.signin import oidc
from runmirror.signin.places import InvalidNext, checked_next
from tests.auth.conftest import Guarded, guarding
from tests.auth.provider import AUDIENCE, CLIENT, CLIENT_SECRET, Provider

SEARCH = "/api/2.0/mlflow/experiments/search"
GOING = {
    "Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none",
    "Sec-Fetch-Dest": "document",
}  # fmt: skip
OUR_PAGE = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
OUR_FORM = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
COOKIE = "runmirror_session"


@pytest.fixture
async def entra(settings: Settings, engine: AsyncEngine, provider: Provider) -> AsyncIterator[Guarded]:
    more = {
        "auth": "entra", "oidc_issuer": provider.url, "oidc_audience": AUDIENCE, "oidc_client_id": CLIENT,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
    }  # fmt: skip
    async with guarding(settings, engine, **more) as made:
        yield made


async def pasted(
    guarded: Guarded, secret: str, name: str = "", **more: Any
) -> tuple[httpx.AsyncClient, httpx.Response]:
    """A browser in which somebody fills in the form."""
    browser = guarded.as_nobody()
    answer = await browser.post("/signin", data={"secret": secret, "name": name}, headers=OUR_FORM, **more)
    return browser, answer


async def who(browser: httpx.AsyncClient) -> str | None:
    answer = await browser.get("/api/2.0/mlflow/users/current", headers=OUR_PAGE)
    return str(answer.json()["user"]["username"]) if answer.status_code == 200 else None


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.01)


async def through_the_provider(browser: httpx.AsyncClient, place: str = "/") -> tuple[str, str]:
    """The address that the provider sends the browser to, and the one where it was."""
    begun = await browser.get("/signin/start", params={"next": place}, headers=GOING)
    assert begun.status_code == 303, begun.text
    async with httpx.AsyncClient(trust_env=False) as network:
        sent = await network.get(begun.headers["location"])
    assert sent.status_code == 302, sent.text
    return sent.headers["location"], begun.headers["location"]


async def test_a_browser_without_a_session_goes_to_the_sign_in_page_and_a_program_gets_401(guarded: Guarded) -> None:
    async with guarded.as_nobody() as client:
        for path, place in {"/": "/", "/mirror/runs?q=a%20b&state=": "/mirror/runs%3Fq%3Da%2520b%26state%3D"}.items():
            answer = await client.get(path, headers=GOING)
            assert (answer.status_code, answer.headers["location"]) == (303, f"/signin?next={place}")
            assert answer.headers["cache-control"] == "no-store"
            page = await client.get(answer.headers["location"], headers=GOING)
            assert page.status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert 'type="password"' in page.text
        lan = {"Accept": "text/html", "Upgrade-Insecure-Requests": "1"}  # browsers say no more without TLS
        assert (await client.get("/mirror", headers=lan)).status_code == 303
        for headers in ({"Accept": "*/*"}, {"Accept": "text/html"}, OUR_PAGE, {**GOING, "Authorization": "Bearer x"}):
            answer = await client.get("/mirror", headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED"), headers
            # A page of ours that asks when the session has ended brings up no window of the browser's.
            assert ("Basic" in answer.headers["www-authenticate"]) == (headers is not OUR_PAGE)
        assert (await client.post("/mirror", headers=GOING)).status_code == 401
        assert (await client.get("/", headers={"Accept": "*/*"})).status_code == 200


async def test_who_pastes_a_token_is_signed_in_until_they_sign_out(guarded: Guarded) -> None:
    token = await guarded.user("ann")
    browser, answer = await pasted(guarded, token, params={"next": "/mirror/runs?q=x#/a"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/mirror/runs?q=x#/a")
    [cookie] = answer.headers.get_list("set-cookie")
    name, _, attributes = cookie.partition("=")
    assert name == COOKIE
    assert re.fullmatch(r"rms_[\w-]{43}; HttpOnly; Max-Age=43200; Path=/; SameSite=lax", attributes)
    assert token not in cookie
    assert await who(browser) == "ann"
    made = await browser.post("/api/2.0/mlflow/experiments/create", json={"name": "x"}, headers=OUR_PAGE)
    assert made.status_code == 200
    signed_in = await browser.get("/signin", headers=GOING)
    assert "signed in as <strong>ann</strong>" in signed_in.text
    kept = dict(browser.cookies)
    out = await browser.post("/signout", headers=OUR_FORM)
    assert (out.status_code, out.headers["location"]) == (303, "/signin")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert await who(browser) is None
    browser.cookies.update(kept)  # whoever has kept the cookie has nothing

    async def is_out() -> bool:
        return await who(browser) is None

    await until(is_out)
    async with guarded.engine.connect() as connection:
        log = (await connection.execute(text("SELECT action, subject FROM audit_log ORDER BY entry_id"))).all()
    assert [tuple(row) for row in log if row.action.startswith("session.")] == [
        ("session.open", "ann"), ("session.end", "ann"),
    ]  # fmt: skip


async def test_what_is_wrong_signs_nobody_in(guarded: Guarded) -> None:
    token = await guarded.user("ann")
    await guarded.user("bob")
    for secret, name in (("", ""), ("rmt_" + "A" * 43, ""), (token[:-1], ""), (token, "bob"), ("password1234", "ann")):
        _, answer = await pasted(guarded, secret, name)
        assert answer.status_code == 401, (secret, name)
        assert "Basic" not in answer.headers["www-authenticate"]
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text
        assert not token or token not in answer.text
    async with guarded.as_nobody() as client:
        long = await client.post("/signin", content=b"secret=" + b"x" * 10_000, headers=OUR_FORM)
        assert long.status_code == 413
        many = await client.post("/signin", content=b"&".join([b"secret=x"] * 99), headers=OUR_FORM)
        assert many.status_code == 413
        # A session is no token, and a token is no session.
        _, good = await pasted(guarded, token)
        session = good.cookies[COOKIE]
        assert (await client.get("/mirror", headers={"Authorization": f"Bearer {session}"})).status_code == 401
        assert (await client.get(SEARCH, headers={"Cookie": f"{COOKIE}={token}"})).status_code == 401


async def test_a_session_ends_with_its_token_its_password_its_user_and_its_time(guarded: Guarded) -> None:
    admin = await guarded.client("root", is_admin=True)
    people = "/api/2.0/mlflow/users"
    for name in ("eve", "fay"):
        made = await admin.post(f"{people}/create", json={"username": name, "password": "password1234"})
        assert made.status_code == 200
    token = await guarded.user("ann")
    by_token, _ = await pasted(guarded, token, "ann")
    by_password, _ = await pasted(guarded, "password1234", "eve")
    of_user, _ = await pasted(guarded, "password1234", "fay")
    by_time, _ = await pasted(guarded, token)
    revoked, _ = await pasted(guarded, token)
    assert [await who(one) for one in (by_token, by_password, of_user, by_time, revoked)] == [
        "ann",
        "eve",
        "fay",
        "ann",
        "ann",
    ]

    async def is_out(browser: httpx.AsyncClient) -> None:
        async def out() -> bool:
            return await who(browser) is None

        await until(out)

    listed = (await by_token.get("/api/runmirror/v1/sessions", headers=OUR_PAGE)).json()["sessions"]
    assert [(one["user"], one["way"]) for one in listed] == [("ann", "token")] * 3
    assert len((await admin.get("/api/runmirror/v1/sessions")).json()["sessions"]) == 5
    newest = f"/api/runmirror/v1/sessions/{listed[0]['session_id']}"
    assert (await by_password.delete(newest, headers=OUR_PAGE)).status_code == 404, "it is another's"
    assert (await by_token.delete(newest, headers=OUR_PAGE)).status_code == 200
    await is_out(revoked)
    async with guarded.engine.begin() as connection:
        await connection.execute(
            text("UPDATE sessions SET expires_at = now() WHERE session_id = :id"), {"id": int(listed[1]["session_id"])}
        )
    await is_out(by_time)
    change = {"username": "eve", "password": "another-password"}
    assert (await admin.patch(f"{people}/update-password", json=change)).status_code == 200
    await is_out(by_password)
    assert (await admin.request("DELETE", f"{people}/delete", json={"username": "fay"})).status_code == 200
    await is_out(of_user)
    assert await who(by_token) == "ann"
    tokens = (await admin.get("/api/runmirror/v1/tokens?user=ann")).json()["tokens"]
    assert (await admin.delete(f"/api/runmirror/v1/tokens/{tokens[0]['token_id']}")).status_code == 200
    await is_out(by_token)


async def test_no_page_elsewhere_can_use_the_cookie(guarded: Guarded) -> None:
    browser, _ = await pasted(guarded, await guarded.user("ann"))
    create, body = "/api/2.0/mlflow/experiments/create", {"name": "made-elsewhere"}
    for headers in (
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"}, {},
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost", "Sec-Fetch-Mode": "navigate"},
    ):  # fmt: skip
        for method, path in (("POST", create), ("POST", "/graphql"), ("DELETE", "/api/runmirror/v1/tokens/1")):
            answer = await browser.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), (headers, path)
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://localhost:9999"},
    ):
        assert (await browser.get(SEARCH, headers=headers)).status_code == 401, headers
    # Nor sign a visitor in as somebody else, or out.
    evil = await guarded.user("mallory")
    for path, data in (("/signin", {"secret": evil}), ("/signout", {})):
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
            assert (await browser.post(path, data=data, headers=headers)).status_code == 403
    assert await who(browser) == "ann"
    linked = {**GOING, "Sec-Fetch-Site": "cross-site"}  # a link in a mail
    assert (await browser.get("/mirror/runs", headers=linked)).status_code == 200
    assert (await browser.post(create, json=body, headers={"Origin": "http://localhost"})).status_code == 200


async def test_a_session_is_always_a_new_one_and_two_cookies_are_none(guarded: Guarded) -> None:
    ann, bob = await guarded.user("ann"), await guarded.user("bob")
    _, first = await pasted(guarded, bob)
    planted = first.cookies[COOKIE]
    async with guarded.as_nobody() as victim:
        victim.cookies.set(COOKIE, planted, domain="localhost.local")
        answer = await victim.post(
            "/signin", data={"secret": ann}, headers={**OUR_FORM, "Cookie": f"{COOKIE}={planted}"}
        )
        mine = answer.cookies[COOKIE]
        assert mine != planted
    async with guarded.as_nobody() as client:

        async def name(cookie: str) -> str | None:
            client.headers["Cookie"] = cookie
            return await who(client)

        assert await name(f"{COOKIE}={mine}") == "ann"

        async def planted_is_out() -> bool:
            return await name(f"{COOKIE}={planted}") is None

        await until(planted_is_out)
        _, again = await pasted(guarded, bob)
        other = again.cookies[COOKIE]
        assert await name(f"{COOKIE}={other}") == "bob"
        for cookie in (
            f"{COOKIE}={mine}; {COOKIE}={other}", f"{COOKIE}={other}; {COOKIE}={mine}", f"{COOKIE}={mine[:-1]}A",
            f"{COOKIE}=rms_{'A' * 43}", f"{COOKIE}=", f"x{COOKIE}={mine}", f"{COOKIE}= {mine[4:]}",
            f"{COOKIE}={mine}\x00", f"{COOKIE.upper()}={mine}", f"__Host-{COOKIE}={mine}", f"{COOKIE}={mine * 100}",
        ):  # fmt: skip
            assert await name(cookie) is None, cookie
        # What is sent as Authorization counts, and not the cookie beside it.
        answer = await client.get(SEARCH, headers={"Cookie": f"{COOKIE}={mine}", "Authorization": "Bearer wrong"})
        assert answer.status_code == 401


async def test_off_loopback_and_below_a_prefix_the_cookie_is_for_tls_and_for_that_place(
    settings: Settings, engine: AsyncEngine
) -> None:
    for more, address, prefix, start in (
        ({"public_url": "https://tracking.example"}, "http://tracking.example", "", f"__Host-{COOKIE}="),
        ({"allowed_hosts": ("*",)}, "http://tracking.example", "", f"__Host-{COOKIE}="),
        ({"static_prefix": "/mlflow"}, "http://localhost:5000", "/mlflow", f"{COOKIE}="),
        (
            {"static_prefix": "/mlflow", "public_url": "https://tracking.example/mlflow"},
            "http://tracking.example", "/mlflow", f"__Secure-{COOKIE}=",
        ),
    ):  # fmt: skip
        async with guarding(settings, engine, **more) as guarded:
            token = await guarded.user("ann")
            async with guarded.as_nobody() as client:
                client.base_url = httpx.URL(address)
                answer = await client.get(f"{prefix}/mirror", headers=GOING)
                assert answer.headers["location"] == f"{prefix}/signin?next=/mirror"
                answer = await client.post(f"{prefix}/signin?next=/mirror", data={"secret": token}, headers=OUR_FORM)
                assert answer.headers["location"] == f"{prefix}/mirror"
                cookie = answer.headers["set-cookie"]
                assert cookie.startswith(start), more
                assert f"Path={prefix or '/'};" in cookie
                assert ("; Secure" in cookie) == start.startswith("__")
                sent = cookie.partition(";")[0]
                found = await client.get(f"{prefix}{SEARCH}?max_results=1", headers={"Cookie": sent, **OUR_PAGE})
                assert found.status_code == 200
                bare = {"Cookie": sent.removeprefix("__Host-").removeprefix("__Secure-"), **OUR_PAGE}
                found = await client.get(f"{prefix}{SEARCH}?max_results=1", headers=bare)
                assert found.status_code == (401 if start.startswith("__") else 200), "anybody could have set that one"


@pytest.mark.parametrize(
    "place",
    [
        "//evil.example", "/\\evil.example", "https://evil.example", "evil.example", "", "/\t/evil.example",
        "/a\r\nX: y", "javascript:alert(1)", "/../other", "/a/%2e%2E/b", "/.//evil.example", "/é", "///", "/x\\y",
        "/" + "x" * 2000, "/ ",
    ],
)  # fmt: skip
async def test_nobody_is_led_elsewhere(place: str) -> None:
    with pytest.raises(InvalidNext):
        checked_next(place)


async def test_a_place_that_is_not_ours_is_refused_wherever_it_is_told(entra: Guarded) -> None:
    async with entra.as_nobody() as client:
        for method, path in (("GET", "/signin"), ("POST", "/signin"), ("GET", "/signin/start")):
            answer = await client.request(method, path, params={"next": "//evil.example"}, headers=OUR_FORM)
            assert answer.status_code == 400, (method, path)
            assert "location" not in answer.headers
        # What is no place of ours in the address line is left out.
        answer = await client.get("/mirror/%5cx", headers=GOING)
        assert answer.headers["location"].startswith("/signin")
        begun = await client.get("/signin/start", headers={**GOING, "X-Forwarded-Host": "evil.example"})
        assert "evil" not in begun.headers["location"]
        # And a browser that was given a cookie by somebody is led nowhere either.
        flow = {"state": "s", "nonce": "n", "verifier": "v", "next": "//evil.example", "begun_at": 9}
        cookie = base64.urlsafe_b64encode(json.dumps(flow).encode()).decode()
        answer = await client.get(
            "/signin/callback?code=c&state=s", headers={**GOING, "Cookie": f"runmirror_signin={cookie}"}
        )
        assert (answer.status_code, "location" in answer.headers) == (400, False)


async def test_the_identity_provider_signs_a_browser_in_with_its_roles_and_groups(
    entra: Guarded, provider: Provider
) -> None:
    provider.person = {"oid": "0f0e0d", "roles": ["runmirror.admin"], "groups": ["11-22"]}
    async with entra.as_nobody() as browser:
        page = await browser.get("/signin?next=/mirror/runs%3Fq=1", headers=GOING)
        assert 'href="./signin/start?next=/mirror/runs%3Fq%3D1"' in page.text
        back, there = await through_the_provider(browser, "/mirror/runs?q=1")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(there).query).items()}
        assert asked["redirect_uri"] == "http://localhost/signin/callback"
        assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43
        done = await browser.get(back, headers={**GOING, "Sec-Fetch-Site": "cross-site"})
        assert (done.status_code, done.headers["location"]) == (303, "/mirror/runs?q=1"), done.text
        assert set(browser.cookies) == {COOKIE}, "what the sign-in needed is forgotten"
        assert await who(browser) == "0f0e0d"
        assert (await browser.get("/api/2.0/mlflow/users/list", headers=OUR_PAGE)).status_code == 200
        assert "ann@example.org" in (await browser.get("/mirror", headers=GOING)).text
        async with entra.engine.connect() as connection:
            row = (await connection.execute(text("SELECT way, claimed, is_admin FROM sessions"))).one()
        assert tuple(row) == ("oidc", ["runmirror.admin", "11-22"], True)
    provider.person = {"oid": "sly", "groups": ["runmirror.admin"]}
    async with entra.as_nobody() as browser:
        back, _ = await through_the_provider(browser)
        assert (await browser.get(back, headers=GOING)).status_code == 303
        assert (await browser.get("/api/2.0/mlflow/users/list", headers=OUR_PAGE)).status_code == 403


async def test_behind_a_proxy_that_takes_a_prefix_off_every_address_is_the_public_one(
    settings: Settings, engine: AsyncEngine, provider: Provider
) -> None:
    more = {
        "auth": "entra", "oidc_issuer": provider.url, "oidc_audience": AUDIENCE, "oidc_client_id": CLIENT,
        "public_url": "https://tracking.example/mlflow",
    }  # fmt: skip
    async with guarding(settings, engine, **more) as guarded, guarded.as_nobody() as browser:
        browser.base_url = httpx.URL("http://tracking.example")  # as the proxy hands it on
        led = await browser.get("/mirror/runs", headers=GOING)
        assert led.headers["location"] == "/mlflow/signin?next=/mirror/runs"
        begun = await browser.get("/signin/start?next=/mirror/runs", headers=GOING)
        [callback] = parse_qs(urlsplit(begun.headers["location"]).query)["redirect_uri"]
        assert callback == "https://tracking.example/mlflow/signin/callback"
        cookie = begun.headers["set-cookie"]
        assert cookie.startswith("__Secure-runmirror_signin=")
        assert "Path=/mlflow; SameSite=lax; Secure" in cookie
        provider.redirects, provider.secret = (callback,), ""
        async with httpx.AsyncClient(trust_env=False) as network:
            back = (await network.get(begun.headers["location"])).headers["location"]
        done = await browser.get(
            back.removeprefix("https://tracking.example/mlflow"), headers={**GOING, "Cookie": cookie.partition(";")[0]}
        )
        assert (done.status_code, done.headers["location"]) == (303, "/mlflow/mirror/runs"), done.text


async def test_an_answer_that_is_not_to_this_browsers_sign_in_is_refused(
    entra: Guarded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(browser: httpx.AsyncClient, address: str, status: int = 400, **headers: str) -> str:
        answer = await browser.get(address, headers={**GOING, **headers})
        assert answer.status_code == status, answer.text
        assert COOKIE not in answer.cookies
        assert answer.headers["content-type"].startswith("text/html")
        assert "location" not in answer.headers
        return answer.text

    async with entra.as_nobody() as browser, entra.as_nobody() as other:
        back, _ = await through_the_provider(browser)
        # Begun elsewhere: an attacker's own sign-in, for a visitor to be in their account.
        assert "not begun in this browser" in await refused(other, back)
        flow = browser.cookies["runmirror_signin"]
        await refused(browser, back.replace("state=", "state=x"))
        sent = {"Cookie": f"runmirror_signin={flow}"}
        await refused(other, re.sub(r"state=[\w-]+", "state=", back), **sent)
        # Too long ago.
        begun = oidc.Flow.read(flow)
        assert begun is not None
        stale = begun.model_copy(update={"begun_at": begun.begun_at - oidc.FLOW_S - 1}).cookie
        assert "too long ago" in await refused(other, back, Cookie=f"runmirror_signin={stale}")
        # With another verifier, as somebody would who has caught the code alone.
        caught = begun.model_copy(update={"verifier": "v" * 43}).cookie
        assert "did not confirm" in await refused(other, back, Cookie=f"runmirror_signin={caught}")
        # The same answer once more, from a browser that has kept all of it.
        back, _ = await through_the_provider(browser)
        sent = {"Cookie": f"runmirror_signin={browser.cookies['runmirror_signin']}"}
        assert (await other.get(back, headers={**GOING, **sent})).status_code == 303
        other.cookies.clear()
        assert "did not confirm" in await refused(other, back, **sent)
    now_wrong: dict[str, dict[str, Any]] = {
        "nonce": {"nonce": "another"}, "no nonce": {"nonce": None}, "audience": {"aud": AUDIENCE},
        "issuer": {"iss": "https://evil.example"}, "ended": {"exp": 1},
        "for another": {"aud": [CLIENT, "x"], "azp": "x"},
        "nobody": {"sub": None, "oid": None}, "no name": {"oid": "a:b"},
    }  # fmt: skip
    for why, lies in now_wrong.items():
        provider.lies = lies
        async with entra.as_nobody() as browser:
            back, _ = await through_the_provider(browser)
            assert 'role="alert"' in await refused(browser, back), why
    provider.lies = {}
    async with entra.as_nobody() as browser:
        back, _ = await through_the_provider(browser)
        assert "another identity provider" in await refused(browser, back + "&iss=https%3A%2F%2Fevil.example")
        provider.person = None
        back, _ = await through_the_provider(browser)
        told = await refused(browser, back)
        assert "<script>" not in told
        assert "access_denied" not in told
        provider.person = {"oid": "0f0e0d"}
        back, _ = await through_the_provider(browser)
        provider.is_up = False
        assert "try again" in await refused(browser, back, 429)
        provider.is_up = True
        for address in ("/signin/callback", "/signin/callback?" + urlencode({"code": "<script>", "state": "\r\nX: y"})):
            assert "<script>" not in await refused(browser, address)


def test_settings_that_would_give_cookies_away_stop_the_start() -> None:
    for wrong in (
        "http://tracking.example",
        "tracking.example",
        "https://a b",
        "https://x.example/?q",
        "https://u@x.example",
    ):
        with pytest.raises(ValueError, match="is not an address"):
            Settings(public_url=wrong)
    with pytest.raises(ValueError, match="needs RUNMIRROR_AUTH=entra"):
        Settings(auth="token", oidc_client_id="x")
    assert Settings(public_url="https://tracking.example/mlflow/").public_url == "https://tracking.example/mlflow"
