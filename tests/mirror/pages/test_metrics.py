"""/metrics: what it counts, and that the alert rules speak of what is there."""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import yaml
from asgi_lifespan import LifespanManager
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.app import create_app
from runmirror.entities import Metric
from runmirror.errors import Busy
from runmirror.hot.middleware import check_hot
from runmirror.metrics.routes import Glance
from runmirror.metrics.shared import forget_dead, shared_counts
from runmirror.mirror import status
from runmirror.mirror.target import TargetRejected, TargetThrottled, TargetUnavailable
from runmirror.mirror.worker import Worker
from runmirror.settings import Settings
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import Source, points
from tests.mirror.memory_target import Failure, MemoryTarget
from tests.server import serving

RULES = Path(__file__).resolve().parents[3] / "docs" / "alerts.yml"
DEADLINE_S = 30.0

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def families(exposition: str) -> list[Family]:
    return list(text_string_to_metric_families(exposition))


def samples(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(exposition)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"runmirror_{name}", frozenset(labels.items())))


async def test_the_mirrors_numbers_are_told(
    client: httpx.AsyncClient, source: Source, target: MemoryTarget, worker: Worker, engine: AsyncEngine
) -> None:
    run, poison = await source.run(), await source.run()
    await poison.log(metrics=points("m", 1))
    await run.log(metrics=points("m", 30), params={f"p{n}": "v" for n in range(203)})
    await run.log_inputs(1)
    await run.upload("f.txt", b"x" * 100)
    await run.finish()
    target.refuses = lambda thing: isinstance(thing, Metric) and thing.step == 29
    target.failures += [
        Failure("log_batch", TargetRejected("refused"), times=2, run_id=poison.run_id.hex),
        Failure("create_run", TargetThrottled("429", retry_after_s=0)),
        Failure("create_run", TargetUnavailable("503"), times=2),
    ]
    await worker.drain()
    late = await source.run()
    async with engine.begin() as connection:
        await status.note_outage(connection, "503")
        await connection.execute(
            text("UPDATE mirrors SET behind_since = now() - interval '1 hour', due_at = now() - interval '1 minute' "
                 "WHERE run_id = :run_id"), {"run_id": late.run_id},
        )  # fmt: skip
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)
    assert value(found, "mirror_runs", state="due") == 1
    assert value(found, "mirror_runs", state="quarantined") == 1
    assert value(found, "mirror_runs", state="leased") == 0
    assert value(found, "mirror_runs", state="partial") == 1
    assert value(found, "mirror_backlog", behind_seconds="1800") == 1
    assert value(found, "mirror_backlog", behind_seconds="0") == 0
    assert value(found, "mirrored_points_total") == 30
    assert value(found, "mirrored_bytes_total") == 100
    assert value(found, "mirror_overflowed_total") == 4, "three params and a point"
    assert value(found, "mirror_throttles_total") == 1
    assert value(found, "mirror_outages_total") == 2
    assert value(found, "mirrored_runs_total") == 1
    assert value(found, "mirror_outage", workspace=WORKSPACE_ID) == 1
    assert value(found, "mirror_workers") == 0
    for name, least in {"mirror_lag_seconds": 3600, "mirror_oldest_due_age_seconds": 60}.items():
        assert least <= (value(found, name) or 0) < least + DEADLINE_S
    age = value(found, "mirror_contact_age_seconds", workspace=WORKSPACE_ID)
    assert age is not None
    assert 0 <= age < DEADLINE_S


async def test_requests_are_counted_by_the_routes_template(client: httpx.AsyncClient) -> None:
    for run_id in ("a" * 32, "b" * 32):
        await client.get(f"/api/runmirror/v1/runs/{run_id}/mirror")
    await client.get("/no/such/page")
    await client.request("BREW", "/health")
    found = samples((await client.get("/metrics", headers={"Accept": "text/plain"})).text)
    deadline = time.monotonic() + DEADLINE_S
    while value(found, "db_pool_in_use") != 0:  # whoever delivers webhooks looks for work now and then
        assert time.monotonic() < deadline
        found = samples((await client.get("/metrics")).text)
    route = "/api/runmirror/v1/runs/{run_id}/mirror"
    assert value(found, "http_requests_total", method="GET", route=route, status="404") == 2
    assert value(found, "http_request_duration_seconds_count", method="GET", route=route) == 2
    assert value(found, "http_requests_total", method="GET", route="none", status="404") == 1
    assert {dict(labels)["method"] for name, labels in found if name == "runmirror_http_requests_total"} == {
        "GET", "other",
    }  # fmt: skip
    assert value(found, "db_pool_size") == 10


@pytest.mark.parametrize("prefix", ["", "/mlflow"])
async def test_hot_requests_are_counted_and_look_as_ordinary_ones(settings: Settings, prefix: str) -> None:
    assert settings.database_url is not None
    small = settings.model_copy(update={"static_prefix": prefix, "max_body_bytes": 1000})
    app = create_app(small, settings.database_url)
    statements: list[str] = []
    async with LifespanManager(app) as manager:
        event.listen(app.state.engine.sync_engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
        transport = httpx.ASGITransport(app=manager.app)
        same = {"X-Request-Id": "same"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=same) as client:
            runs = "/api/2.0/mlflow/runs"
            made = await client.post(f"{prefix}{runs}/create", json={"experiment_id": "0"})
            run_id = made.json()["run"]["info"]["run_id"]
            tag = {"run_id": run_id, "key": "k", "value": "v"}
            hot = await client.post(f"{prefix}{runs}/set-tag", json=tag)
            await client.post(f"{prefix}/ajax-api/2.0/mlflow/runs/set-tag", json=tag)
            assert not any("INSERT" in statement for statement in statements), "no write of these took the ordinary way"
            ordinary = await client.post(
                f"{prefix}{runs}/set-tag", json=tag, headers={"Content-Type": "application/json; charset=utf-8"}
            )
            missing = await client.post(f"{prefix}{runs}/set-tag", json={**tag, "run_id": "0" * 32})
            long = await client.post(f"{prefix}{runs}/set-tag", json={**tag, "value": "v" * 1000})
            told = await client.get("/metrics")
    assert any("INSERT INTO tags" in statement for statement in statements)
    assert [answer.status_code for answer in (made, hot, ordinary, missing, long)] == [200, 200, 200, 404, 413]
    assert (dict(hot.headers), hot.content) == (dict(ordinary.headers), ordinary.content)
    found = samples(told.text)
    counted = {
        (dict(labels)["route"], dict(labels)["status"]): number
        for (name, labels), number in found.items() if name == "runmirror_http_requests_total"
    }  # fmt: skip
    assert counted == {
        (f"{runs}/create", "200"): 1, (f"{runs}/set-tag", "200"): 2, ("/ajax-api/2.0/mlflow/runs/set-tag", "200"): 1,
        (f"{runs}/set-tag", "404"): 1, ("none", "413"): 1,
    }  # fmt: skip
    assert value(found, "http_request_duration_seconds_count", method="POST", route=f"{runs}/set-tag") == 3


async def test_what_a_hot_route_refuses_or_breaks_at_is_counted(settings: Settings) -> None:
    assert settings.database_url is not None
    app = create_app(settings, settings.database_url)
    async with LifespanManager(app) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def busy(_: bytes) -> bytes:
                raise Busy("too many")

            async def broken(_: bytes) -> bytes:
                raise ArithmeticError

            handlers = {"/api/2.0/mlflow/runs/create": busy, "/api/2.0/mlflow/runs/set-tag": broken}
            app.state.hot = check_hot(app, handlers)
            answers = [await client.post(path, json={}) for path in handlers]
            found = samples((await client.get("/metrics")).text)
    assert [answer.status_code for answer in answers] == [429, 500]
    for path, answer in zip(handlers, answers, strict=True):
        counted = value(found, "http_requests_total", method="POST", route=path, status=str(answer.status_code))
        assert counted == 1
        assert answer.json()["error_code"]


async def test_every_name_and_label_in_the_alert_rules_is_in_the_exposition(
    client: httpx.AsyncClient, target: MemoryTarget
) -> None:
    await client.get("/health")
    told = families((await client.get("/metrics")).text)
    exposed = {sample.name: sample.labels for family in told for sample in family.samples}
    states = {sample.labels["state"] for family in told for sample in family.samples if "state" in sample.labels}
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    named = {
        name: set(re.findall(r"(\w+)(?==~|!=|!~|=)", labels or ""))
        for rule in rules
        for name, labels in re.findall(r"(runmirror_\w+)(?:\{([^}]*)\})?", rule["expr"])
    }
    assert {"runmirror_mirror_lag_seconds", "runmirror_http_requests_total"} <= set(named)
    for name, labels in named.items():
        assert name in exposed
        assert labels <= set(exposed[name]), name
    for rule in rules:
        assert set(re.findall(r'state="(\w+)"', rule["expr"])) <= states
        for label in re.findall(r"\w+", " ".join(re.findall(r"by \(([\w, ]+)\)", rule["expr"]))):
            # `instance` is Prometheus' own.
            assert label == "instance" or label in exposed[re.findall(r"runmirror_\w+", rule["expr"])[0]]
        assert rule["annotations"]["summary"]
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert re.search(rf"by \([\w, ]*{label}", rule["expr"]) or " by " not in rule["expr"]


def test_every_rule_fires_when_it_should_and_none_where_nothing_is_linked(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine (Debian: the package prometheus)")
    played = tmp_path / "alerts_test.yml"
    played.write_text((Path(__file__).parent / "alerts_test.yml").read_text().replace("RULES", str(RULES)))
    done = subprocess.run([promtool, "test", "rules", str(played)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_however_many_ask_within_a_second_the_database_is_asked_once(engine: AsyncEngine) -> None:
    asked: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda _, __, statement, *___: asked.append(statement))
    glance = Glance()
    answers = await asyncio.gather(*(glance.look(engine) for _ in range(20)))
    assert len({id(answer) for answer in answers}) == 1
    assert answers[0] is not None
    assert len(asked) == 1


async def test_without_a_database_the_servers_own_numbers_are_told(settings: Settings) -> None:
    async with LifespanManager(create_app(settings, "postgresql://nobody@127.0.0.1:1/none")) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/health")
            answer = await client.get("/metrics")
    assert answer.status_code == 200
    found = samples(answer.text)
    assert value(found, "database_up") == 0
    assert value(found, "http_requests_total", method="GET", route="/health", status="200") == 1
    assert not any(name.startswith("runmirror_mirror") for name, _ in found)


async def test_metrics_can_be_turned_off(settings: Settings) -> None:
    assert settings.database_url is not None
    off = settings.model_copy(update={"metrics": False})
    async with LifespanManager(create_app(off, settings.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/metrics")).status_code == 404


def test_several_processes_count_together(database_url: str, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    arguments = ("--no-mirror", "--workers", "2", "--expose-prometheus", str(shared))
    with (
        serving(tmp_path / "data", *arguments, RUNMIRROR_DATABASE_URL=database_url) as server,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(_: int) -> None:
            connection = HTTPConnection(server.url.removeprefix("http://"), timeout=DEADLINE_S)
            connection.request("GET", "/version")
            assert connection.getresponse().read() == b"3.17.2"
            connection.close()

        def counted() -> float | None:
            told = samples(httpx.get(f"{server.url}/metrics", trust_env=False, timeout=10).text)
            return value(told, "http_requests_total", method="GET", route="/version", status="200")

        asked = 0
        deadline = time.monotonic() + DEADLINE_S
        while len(list(shared.glob("*/counter_*.db"))) < 2:
            assert time.monotonic() < deadline
            list(pool.map(ask, range(32)))
            asked += 32
        assert counted() == asked
        assert len(list(shared.iterdir())) == 1
    assert list(shared.iterdir()) == []


def test_counts_of_the_dead_are_kept_but_what_they_had_in_use_is_not(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the greatest process id of Linux
    for name in (f"gauge_livesum_{dead}.db", f"gauge_livesum_{os.getpid()}.db", f"counter_{dead}.db"):
        (tmp_path / name).touch()
    forget_dead(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {f"gauge_livesum_{os.getpid()}.db", f"counter_{dead}.db"}


def test_a_temporary_folder_serves_when_none_is_named() -> None:
    with shared_counts(None) as environment:
        folder = Path(environment["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.parent == Path(tempfile.gettempdir())
        assert folder.is_dir()
    assert not folder.exists()
