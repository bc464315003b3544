"""What the door lets in and what it refuses, on the app production runs."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx
import pytest
from asgi_lifespan import LifespanManager

from runmirror import logs
from runmirror.app import create_app
from runmirror.body_limit import MAX_NESTING
from runmirror.door.hosts import DEFAULT, Hosts
from runmirror.door.middleware import MAX_HEADERS, MAX_PATH_BYTES, MAX_QUERY_BYTES
from runmirror.door.origins import Origins
from runmirror.door.rate import Buckets
from runmirror.settings import Settings

CREATE = "/api/2.0/mlflow/experiments/create"


@asynccontextmanager
async def serving(settings: Settings, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    changed = Settings(**(settings.model_dump() | changes))
    assert changed.database_url is not None
    async with LifespanManager(create_app(changed, changed.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5000") as client:
            yield client


@pytest.mark.parametrize(
    ("entries", "admitted", "refused"),
    [
        (
            DEFAULT,
            (
                "localhost LOCALHOST localhost. localhost:5000 127.0.0.1 127.8.9.1:80 [::1]:5000 0.0.0.0:5000 10.1.2.3 "
                "172.31.0.1 192.168.1.1:8080 [fd12::1]:5000"
            ),
            (
                "10.evil.example 192.168.evil.example 127.0.0.1.evil.example localhost.evil.example 8.8.8.8 172.32.0.1 "
                "169.254.169.254 [2001:db8::1] tracking.example evil.example:5000 a@localhost localhost,evil "
                "localhost:x "
                "localhost/x [::1 ::1 [::1]x localhost:123456"
            ),
        ),
        (("10.*", "172.16.*:5000"), "10.9.9.9 172.16.1.1:5000", "10.evil.example 11.0.0.1 172.16.1.1 172.17.0.1:5000"),
        (("tracking.example",), "tracking.example tracking.example:443", "a.tracking.example xtracking.example"),
        (("tracking.example:443",), "tracking.example:443", "tracking.example tracking.example:80"),
        (("tracking.example:*",), "tracking.example:443 tracking.example", "evil.example"),
        (("*.example",), "a.example a.b.example:1", "example .example evil.com a.example.evil.com 10.0.0.1"),
        (("2001:db8::/32", "[fd00::1]:80"), "[2001:db8::5]:1 [fd00::1]:80", "[fd00::1] [2001:db9::5]"),
        (("*",), "anything.example:9 8.8.8.8", "two,hosts <script>"),
    ],
)
def test_a_host_is_admitted_by_name_address_or_network(entries: Iterable[str], admitted: str, refused: str) -> None:
    hosts = Hosts(tuple(entries))
    assert [host for host in admitted.split() if not hosts.admits(host)] == []
    assert [host for host in [*refused.split(), "", " ", "localhost\n"] if hosts.admits(host)] == []


@pytest.mark.parametrize(
    "entry", ["", "10.*.1", "a.*.example", "*evil", "http://x", "10.0.0.0/99", "a b", "a:b", "[x]"]
)
def test_what_names_no_host_or_origin_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a host"):
        Hosts([entry])
    with pytest.raises(ValueError, match="is not a"):
        Origins([f"https://{entry}"])
    with pytest.raises(ValueError, match="is not an origin"):
        Origins(["app.example"])


async def test_a_foreign_host_is_named_in_its_refusal_with_the_setting(settings: Settings) -> None:
    async with serving(settings, static_prefix="/mlflow") as client:
        for host in ("evil.example", "10.evil.example:5000", "<script>x</script>", ""):
            refused = await client.get("/mlflow/api/2.0/mlflow/experiments/get", headers={"Host": host})
            assert (refused.status_code, refused.headers["content-type"]) == (403, "application/json"), host
            assert refused.headers["x-content-type-options"] == "nosniff"
            assert "--allowed-hosts" in refused.json()["message"]
            assert "<" not in refused.text
        assert "'evil.example'" in (await client.get("/mlflow/", headers={"Host": "evil.example"})).json()["message"]
        for probe in ("/livez", "/mlflow/livez", "/readyz", "/mlflow/health"):
            assert (await client.get(probe, headers={"Host": "172.32.9.9:5000"})).status_code == 200, probe
        counted = (await client.get("/metrics")).text
        assert 'runmirror_http_requests_total{method="GET",route="none",status="403"} 5.0' in counted
    async with serving(settings, allowed_hosts="tracking.example, 10.0.0.0/8") as client:
        assert (await client.get("/version", headers={"Host": "tracking.example"})).status_code == 200
        assert (await client.get("/", headers={"Host": "localhost"})).status_code == 403


async def test_two_host_headers_are_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers=[("Host", "localhost"), ("Host", "localhost")])
    assert answer.status_code == 400


CHANGING = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "https://localhost:5000@evil.example"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://a.tracking.example", "Host": "tracking.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3000", "Host": "tracking.example"},
    ],
)
async def test_a_page_elsewhere_changes_nothing_and_may_read_nothing(
    settings: Settings, headers: dict[str, str]
) -> None:
    async with serving(settings, allowed_hosts="*") as client:
        named = client.build_request("POST", CREATE, json={"name": "planted"})
        refused = await client.post(CREATE, content=named.content, headers=CHANGING | headers)
        assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")
        assert "--cors-allowed-origins" in refused.json()["message"]
        plain = await client.post(CREATE, content=named.content, headers={"Content-Type": "text/plain"} | headers)
        asked = await client.options(CREATE, headers=headers | {"Access-Control-Request-Method": "POST"})
        hot = await client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"}, headers=headers)
        assert [answer.status_code for answer in (plain, asked, hot)] == [403, 403, 403]
        read = await client.get("/api/2.0/mlflow/experiments/get?experiment_id=0", headers=headers)
        assert read.status_code == 200
        assert not [name for name in (*read.headers, *asked.headers) if name.startswith("access-control")]
        experiments = await client.post("/api/2.0/mlflow/experiments/search", json={"max_results": 9})
        assert len(experiments.json()["experiments"]) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:5000"},
        {"Origin": "https://tracking.example", "Host": "tracking.example"},  # a proxy ended TLS
        {"Origin": "https://tracking.example", "Host": "upstream:5000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "cross-site"},  # a page of this machine, as in MLflow
        {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_our_pages_programs_and_listed_origins_may_change(settings: Settings, headers: dict[str, str]) -> None:
    async with serving(settings, allowed_hosts="*", cors_allowed_origins="https://app.example") as client:
        assert (await client.post(CREATE, json={"name": "n"}, headers=headers)).status_code == 200


async def test_a_listed_origin_is_told_so_and_everybody_is_told_without_credentials(settings: Settings) -> None:
    page = {"Origin": "https://app.example"}
    asking = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with serving(settings, cors_allowed_origins="https://*.example") as client:
        before = await client.options(CREATE, headers=asking)
        assert (before.status_code, before.headers["access-control-allow-headers"]) == (204, "content-type")
        for answer in (before, await client.get("/version", headers=page)):
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "Origin"
        for foreign in ("http://app.example", "https://app.example:8443", "https://app.example.evil.com"):
            assert (await client.post(CREATE, json={}, headers={"Origin": foreign})).status_code == 403
    async with serving(settings, cors_allowed_origins="*") as client:
        answer = await client.post(CREATE, json={"name": "n"}, headers=page)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert "access-control-allow-credentials" not in answer.headers


async def test_every_answer_has_the_security_headers_once(settings: Settings) -> None:
    async with serving(settings, static_prefix="/p") as client:
        answers = {
            path: await client.get(path)
            for path in ("/", "/p", "/p/", "/p/health", "/p/api/2.0/mlflow/experiments/get", "/p/nonsense", "/p/mirror")
        }
    unready = create_app(settings, settings.database_url or "")  # its lifespan never began: there is no engine
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(unready, raise_app_exceptions=False), base_url="http://localhost"
    ) as client:
        answers["broken"] = await client.get("/api/2.0/mlflow/experiments/get?experiment_id=0")
        assert answers["broken"].status_code == 500
    for path, answer in answers.items():
        for name in (
            "x-content-type-options", "x-frame-options", "referrer-policy", "cross-origin-resource-policy",
            "x-request-id",
        ):  # fmt: skip
            assert len(answer.headers.get_list(name)) == 1, (path, name)


async def test_what_is_too_much_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    many = {f"x-{number}": "y" for number in range(MAX_HEADERS)}
    long = {"x-long": "y" * 70_000}
    assert [(await client.get("/health", headers=headers)).status_code for headers in (many, long)] == [431, 431]
    assert (await client.get("/health?" + "q" * (MAX_QUERY_BYTES + 1))).status_code == 414
    assert (await client.get("/" + "p" * MAX_PATH_BYTES)).status_code == 414
    for depth, status in ((MAX_NESTING, 200), (MAX_NESTING + 1, 400), (100_000, 400)):
        nested = b'{"name": "%d", "x": ' % depth + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        answer = await client.post(CREATE, content=nested, headers=CHANGING)
        assert answer.status_code == status, (depth, answer.text)
    assert "nests deeper" in answer.json()["message"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"],
)
async def test_a_route_of_json_takes_no_other_type(client: httpx.AsyncClient, kind: str) -> None:
    """What a form of another site can send without asking first."""
    for path, body in (
        ("/api/2.0/mlflow/runs/create", {"experiment_id": "0"}),
        ("/api/2.0/mlflow/experiments/create", {"name": "n"}),
        ("/api/2.0/mlflow/experiments/search", {}),
        ("/graphql", {"query": "{ __typename }"}),
        ("/api/2.0/mlflow/webhooks/list", {}),
    ):
        request = client.build_request("POST", path, json=body)
        answer = await client.post(path, content=request.content, headers={"Content-Type": kind})
        assert answer.status_code in {400, 404}, path
    runs = await client.post("/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0"]})
    assert runs.json() == {}


async def test_an_address_that_asks_too_often_is_told_when_to_come_again(settings: Settings) -> None:
    async with serving(settings, rate_limit=2.0) as client:
        answers = [await client.get("/version") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 3  # a probe is free
        answers = [await client.post(CREATE, json={"name": f"n{number}"}) for number in range(15)]
        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        last = answers[-1]
        assert (last.status_code, last.json()["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED")
        assert 1 <= int(last.headers["retry-after"]) <= 2
        assert last.headers["x-content-type-options"] == "nosniff"


def test_a_bucket_fills_at_its_rate_and_of_too_many_callers_the_oldest_is_forgotten() -> None:
    now = 0.0
    buckets = Buckets(2.0, lambda: now)
    assert [buckets.take("a") for _ in range(10)] == [0.0] * 10
    assert buckets.take("a") == 0.5
    assert buckets.take("b") == 0.0
    now = 0.5
    assert (buckets.take("a"), buckets.take("a")) == (0.0, 0.5)
    for number in range(10_001):
        buckets.take(str(number))
    assert buckets.take("a") == 0.0


async def test_log_lines_name_the_request_and_an_answer_names_it_too(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    stream = io.StringIO()
    handler = logs.lines("json", stream)
    logger = logging.getLogger("runmirror.metrics.http")
    caplog.set_level(logging.INFO, logger.name)
    logger.addHandler(handler)
    try:
        async with serving(settings, access_log=True) as client:
            path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
            given = await client.get(path, headers={"X-Request-Id": "from-the-proxy.7"})
            made = [await client.get(path, headers={"X-Request-Id": bad}) for bad in ("a b", "x" * 65, "", '"')]
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0] | {"time": "", "ms": 0} == {
        "time": "", "level": "info", "logger": logger.name, "request_id": "from-the-proxy.7", "method": "GET",
        "route": "/api/2.0/mlflow/experiments/get", "status": 200, "ms": 0, "client": "127.0.0.1",
        "message": lines[0]["message"],
    }  # fmt: skip
    ids = [answer.headers["x-request-id"] for answer in [given, *made]]
    assert [line["request_id"] for line in lines] == ids
    assert len(set(ids)) == 5
    assert not any("experiment_id" in json.dumps(line) for line in lines)
