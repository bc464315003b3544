"""The dashboard's pages, from the states that workers leave behind."""

import re
from dataclasses import fields
from typing import get_args
from uuid import uuid4

import httpx
import pytest
from asgi_lifespan import LifespanManager
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.dashboard.words import KINDS, LIMITS
from runmirror.dashboard.words import kind as words_of_kind
from runmirror.entities import Metric
from runmirror.mirror import pulse, status
from runmirror.mirror.limits import Limits
from runmirror.mirror.overflow import Kind
from runmirror.mirror.target import TargetRejected
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.mirror.conftest import MakeWorker
from tests.mirror.factories import Source, SourceRun, points
from tests.mirror.memory_target import Failure, MemoryTarget

EVIL = '<script>alert("x")</script>'
PRESSED = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def poison(source: Source, target: MemoryTarget, worker: Worker) -> SourceRun:
    """A run that the workspace refused."""
    run = await source.run(f"poison {EVIL}")
    await run.log(metrics=points("m", 30), params={"a": "1"}, tags={"b": "2"})
    await run.upload("f.txt", b"x" * 2048)
    refusal = TargetRejected(f"refused {EVIL}")
    target.failures.append(Failure("log_batch", refusal, times=2, run_id=run.run_id.hex))  # not even a harmless tag
    await worker.drain()
    return run


def words(answer: httpx.Response) -> str:
    """What a page says, without its markup."""
    body = answer.text.partition("<body>")[2] or answer.text
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


async def test_an_unlinked_server_tells_the_one_command_that_links(client: httpx.AsyncClient, source: Source) -> None:
    empty = await client.get("/mirror/runs")
    assert "Nothing has been logged yet" in words(empty)
    await source.run()
    told = words(await client.get("/mirror"))
    assert "No workspace is linked. 1 run waits" in told
    assert "Run: runmirror link /subscriptions/" in told
    assert "No worker is running" not in told


async def test_a_linked_server_tells_of_a_missing_worker_and_of_nothing_mirrored(
    client: httpx.AsyncClient, target: MemoryTarget, engine: AsyncEngine
) -> None:
    told = words(await client.get("/mirror"))
    assert "No worker is running" in told
    assert "memory /subscriptions/" in told
    async with engine.begin() as connection:
        await pulse.beat(connection, uuid4())
    told = words(await client.get("/mirror"))
    assert "No worker is running" not in told
    assert "Nothing has been mirrored yet: log a run" in told
    assert "Workers alive 1" in told


async def test_an_outage_is_told_with_its_reason(
    client: httpx.AsyncClient, target: MemoryTarget, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await status.note_outage(connection, "503 from <the> workspace")
    answer = await client.get("/mirror")
    assert "memory cannot be used , as found 0 s ago" in words(answer)
    assert "503 from &lt;the&gt; workspace" in answer.text


async def test_a_quarantined_run_is_replayed_by_its_button(
    client: httpx.AsyncClient, poison: SourceRun, make_worker: MakeWorker, target: MemoryTarget
) -> None:
    overview = await client.get("/mirror")
    assert "Quarantined 1 run " in words(overview)
    assert "refused &lt;script&gt;" in overview.text
    assert EVIL not in overview.text
    address = f"/mirror/runs/{poison.run_id.hex}"
    assert f'action="./{address[1:]}/retry"' in overview.text
    page = await client.get(address)
    assert EVIL not in page.text
    assert "Set aside" in words(page)
    assert "Writes mirrored 0 of" in words(page)

    pressed = await client.post(f"{address}/retry", headers=PRESSED)
    assert (pressed.status_code, pressed.headers["location"]) == (303, f"../{poison.run_id.hex}?retried=yes")
    assert (await poison.mirror()).state == "due"
    assert (await poison.tags())["runmirror.status"] == "pending"
    assert "The run is due now" in words(await client.get(f"{address}?retried=yes"))
    await make_worker(target).drain()

    page = await client.get(address)
    assert "State mirrored" in words(page)
    assert "metric points 30 30 0 0 params 1 1 0 0" in words(page)
    assert "files 1 1 – 0 bytes 2 KiB 2 KiB – 0 B" in words(page)
    assert f'href="https://portal.example/runs/{target.of(poison.run_id.hex).run_id}"' in page.text
    assert f'href="../../#/experiments/0/runs/{poison.run_id.hex}"' in page.text
    again = await client.post(f"{address}/retry", headers=PRESSED)
    assert again.headers["location"].endswith("?retried=no")
    assert (await poison.mirror()).state == "current"


async def test_a_form_from_elsewhere_presses_no_button(client: httpx.AsyncClient, poison: SourceRun) -> None:
    foreign: list[dict[str, str]] = [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost.evil.example"},
    ]
    for headers in foreign:
        answer = await client.post(f"/mirror/runs/{poison.run_id.hex}/retry", headers=headers)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), headers
    assert (await poison.mirror()).state == "quarantined"


async def test_a_browser_that_only_sends_origin_presses_buttons_too(
    client: httpx.AsyncClient, poison: SourceRun
) -> None:
    address = f"/mirror/runs/{poison.run_id.hex}/retry"
    assert (await client.post(address, headers={"Origin": "http://localhost"})).status_code == 303
    unknown = await client.post(f"/mirror/runs/{'0' * 32}/retry", headers=PRESSED)
    assert (unknown.status_code, unknown.headers["location"]) == (303, f"../{'0' * 32}?retried=no")
    assert (await client.post("/mirror/runs/-nonsense/retry", headers=PRESSED)).status_code == 404


async def test_runs_are_found_by_name_id_and_state_and_every_one_stands_on_one_page(
    client: httpx.AsyncClient, poison: SourceRun, source: Source
) -> None:
    made = {(await source.run(f"Run 100% number_{number}")).run_id.hex for number in range(60)} | {poison.run_id.hex}

    async def found(**query: str) -> tuple[list[str], str | None]:
        answer = await client.get("/mirror/runs", params=query)
        assert answer.status_code == 200
        following = re.search(r'rel="next" href="([^"]*)"', answer.text)
        return re.findall(r"<br><code>(\w{32})</code>", answer.text), following and following[1].replace("&amp;", "&")

    first, following = await found()
    assert (len(first), first) == (50, sorted(made, reverse=True)[:50])
    assert following is not None
    second, end = await found(**dict(httpx.URL(following).params))
    assert (set(first) | set(second), len(second), end) == (made, 11, None)
    assert len((await found(q="100% NUMBER_7"))[0]) == 1
    assert (await found(q="100%%"))[0] == []
    for length in (32, 30, 21, 20, 17, 16):  # wherever the hyphens of an id are; what comes before is its time
        assert (await found(q=poison.run_id.hex[:length]))[0] == [poison.run_id.hex], length
    for length in (8, 4):
        assert len((await found(q=poison.run_id.hex[:length]))[0]) == 50, length
    assert (await found(q=str(poison.run_id)))[0] == [poison.run_id.hex]
    elsewhere = await source.run("x", experiment_id=await source.experiment("Kiln & Co"))
    assert (await found(q="kiln & c"))[0] == [elsewhere.run_id.hex]
    named_by_id = await source.run(poison.run_id.hex[::-1])
    assert (await found(q=poison.run_id.hex[::-1]))[0] == [named_by_id.run_id.hex]
    assert (await found(state="quarantined"))[0] == [poison.run_id.hex]
    assert (await found(state="failing", q="x"))[0] == []
    assert len((await found(state="behind"))[0]) == 50
    assert (await found(state="mirrored"))[0] == []


@pytest.mark.parametrize("query", ["state=nonsense", "after=nonsense", "q=%00", f"q={'x' * 501}"])
async def test_a_senseless_search_is_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.get(f"/mirror/runs?{query}")).status_code == 400


async def test_an_unknown_run_has_a_page_that_says_so(client: httpx.AsyncClient) -> None:
    for run_id in ("0" * 32, "%3Cscript%3E"):
        answer = await client.get(f"/mirror/runs/{run_id}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "No run has the id" in words(answer)
        assert "<script" not in answer.text


async def test_what_overflowed_is_counted_and_listed_with_its_reason(
    client: httpx.AsyncClient, source: Source, target: MemoryTarget, make_worker: MakeWorker
) -> None:
    run = await source.run("much")
    await run.log(params={f"p{n:03}": "v" for n in range(240)}, tags={f"<t>{EVIL}": "long " * 300, "fits": "v"})
    await run.log(metrics=[*points("a", 10), *points("b", 7)])
    await run.log_inputs(3)
    target.refuses = lambda thing: isinstance(thing, Metric) and thing.key == "a" and thing.step == 8
    await run.finish()
    await make_worker(target, mirror_limit_metrics=1, mirror_limit_inputs=2).drain()
    page = await client.get(f"/mirror/runs/{run.run_id.hex}")
    told = words(page)
    assert "State partial" in told
    assert "metric points 17" in told
    assert "params 240 200 40 0" in told
    assert "datasets 3 2 1 0" in told
    assert "40 params" in told
    assert "1 dataset" in told
    assert "1 tag" in told
    assert "param p224 the run has more params than the workspace holds" in told
    assert "p225" not in told, "25 of a kind are listed"
    assert "tag &lt;t&gt;" in told
    assert "the value is longer than the workspace allows" in told
    assert "dataset d2 the run has more datasets than the workspace holds" in told
    assert re.search(r"points of a metric, from write \d+ on a there is something in it that is not taken", told)
    assert EVIL not in page.text
    assert "about to be written" not in told
    assert [run.run_id.hex] == re.findall(
        r"<br><code>(\w{32})</code>", (await client.get("/mirror/runs?state=partial")).text
    )
    answer = (await client.get(f"/api/runmirror/v1/runs/{run.run_id.hex}/mirror")).json()
    for what, count in answer["overflow"]["counts"].items():
        assert f"{count} {words_of_kind(what, count)}" in told


def test_every_limit_that_can_be_a_reason_is_put_into_words() -> None:
    names = {field.name for field in fields(Limits) if not field.name.endswith("_per_request")}
    assert set(LIMITS) == names - {"experiment_name"}
    assert set(KINDS) == set(get_args(Kind))


async def test_every_linked_workspace_is_shown_with_what_is_wrong_with_it(
    client: httpx.AsyncClient, target: MemoryTarget, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        await pulse.beat(connection, uuid4())
        await connection.execute(
            text("""
                INSERT INTO mirror_links (name, is_default, workspace_id, portal_base, last_error, last_contact_at)
                VALUES ('second', false, '/w/second', 'javascript:alert(1)', '403 no role', now()),
                    ('third', false, '/w/third', 'https://studio.example/?wsid="third"', NULL, now())""")
        )
        await connection.execute(text("INSERT INTO mirror_limits (link_id, name, value) VALUES (1, 'tag_value', 256)"))
    page = await client.get("/mirror")
    told = words(page)
    assert "Workspaces Linked" in told
    assert "memory /subscriptions/" in told
    assert "second cannot be used" in told
    assert "second /w/second outage" in told
    assert "third in the studio /w/third ok" in told
    assert "javascript:" not in page.text
    assert 'href="https://studio.example/?wsid=&#34;third&#34;"' in page.text
    assert "learned from refusals: tag_value 256" in told
    metrics = (await client.get("/metrics")).text
    assert 'runmirror_mirror_outage{workspace="/w/second"} 1.0' in metrics
    assert 'runmirror_mirror_outage{workspace="/w/third"} 0.0' in metrics


async def test_the_last_hour_is_drawn_with_what_is_known_and_what_is_not(
    client: httpx.AsyncClient, target: MemoryTarget, engine: AsyncEngine
) -> None:
    assert "Lag not known: no worker was there to see" in words(await client.get("/mirror"))
    async with engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO mirror_lag SELECT date_trunc('minute', now()) - interval '1 minute' * n, n * 60
                FROM generate_series(1, 30) AS numbers (n)""")
        )
        await connection.execute(
            text("""
                INSERT INTO mirror_throughput (minute, worker_id, points, bytes)
                SELECT date_trunc('minute', now()) - interval '1 minute' * n, gen_random_uuid(), 300, 614400
                FROM generate_series(1, 3) AS numbers (n), generate_series(1, 2)""")
        )
    page = await client.get("/mirror")
    assert "Lag at most 30 min; shaded: no worker looked" in words(page)
    assert "Metric points at most 10/s" in words(page)
    assert "Files at most 20 KiB/s" in words(page)
    lag, _, sent, _ = re.findall(r'<svg viewBox="0 0 600 100".*?</svg>', page.text, re.DOTALL)
    assert lag.count('class="absent"') in {29, 30}  # a minute may have ended since
    assert lag.count('class="bar"') in {30, 31}
    assert sent.count('height="100.0"') == 3


async def test_pages_allow_nothing_from_elsewhere_and_link_relatively(
    settings: Settings, client: httpx.AsyncClient, poison: SourceRun
) -> None:
    slash = await client.get("/mirror/")
    assert (slash.status_code, slash.headers["location"]) == (308, "../mirror")
    for path in ("/mirror", "/mirror/runs", f"/mirror/runs/{poison.run_id.hex}", "/mirror/runs/nonsense"):
        answer = await client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'"), path
        assert "frame-ancestors 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert re.findall(r'(?:href|src|action)="(/[^"]*)"', answer.text) == []
        assert not re.search(r"<script|\sstyle=|\son\w+=", answer.text), path
    denying = settings.model_copy(update={"x_frame_options": "DENY"})
    assert denying.database_url is not None
    async with LifespanManager(create_app(denying, denying.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
            assert "frame-ancestors 'none'" in (await other.get("/mirror")).headers["content-security-policy"]


async def test_the_backlog_is_counted_by_age(client: httpx.AsyncClient, poison: SourceRun, engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("""
                INSERT INTO mirrors (run_id, state, behind_since)
                SELECT gen_random_uuid(), 'due', now() - n * interval '3 minutes'
                FROM generate_series(1, 1000) AS numbers (n)""")
        )
    told = words(await client.get("/mirror"))
    assert "Lag 2 d 2 h" in told
    assert "Waiting 1,000 runs" in told
    assert "Quarantined 1 run " in told
    shown = re.search(r"less than 1 min (.*?) Workers", told)
    assert shown is not None
    assert shown[1] == ("0 1 min to 5 min 1 5 min to 30 min 8 30 min to 2 h 30 2 h to 1 d 440 1 d and more 521")
