"""Traces over HTTP, on a real Postgres: what the comparison with MLflow's server cannot see."""

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.settings import Settings
from runmirror.traces import queries
from runmirror.traces.otlp import parse_export
from runmirror.traces.spans_service import log_spans
from tests.conformance.traces import V3, info, new_id, pairs, span

HEADERS = {"x-mlflow-experiment-id": "0", "content-type": "application/json"}


def body_of(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> bytes:
    resource_spans = {"resource": {"attributes": pairs(resource or {})}, "scopeSpans": [{"spans": spans}]}
    return json.dumps({"resourceSpans": [resource_spans]}).encode()


async def export(client: httpx.AsyncClient, *spans: dict[str, Any], **options: Any) -> None:
    answer = await client.post("/v1/traces", content=body_of(*spans, **options), headers=HEADERS)
    assert answer.status_code == 200, answer.text


async def call(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> Any:
    answer = await client.request(method, path, **options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, method: str, path: str, **options: Any) -> str:
    answer = await client.request(method, path, **options)
    assert 400 <= answer.status_code < 500, answer.text
    return str(answer.json()["error_code"])


async def rows(engine: AsyncEngine, table: str) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_a_deleted_trace_leaves_nothing_behind(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    trace_id = new_id()
    await export(client, span(trace_id), span(trace_id, 2, 1))
    await call(client, "POST", f"{V3}/{trace_id}/assessments", json={"assessment": {"feedback": {"value": 1}}})
    link = {"trace_ids": [trace_id], "run_id": "0" * 32}
    await call(client, "POST", "/api/2.0/mlflow/traces/link-to-run", json=link)
    deletion = {"experiment_id": "0", "request_ids": [trace_id]}
    assert (await call(client, "POST", f"{V3}/delete-traces", json=deletion))["traces_deleted"] == 1
    for table in ("traces", "spans", "assessments", "trace_links"):
        assert await rows(engine, table) == 0, table


async def test_a_refused_span_writes_none_of_the_others(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    good, bad = span(new_id()), span(new_id(), spanId="00")
    await refused(client, "POST", "/v1/traces", content=body_of(good, bad), headers=HEADERS)
    assert (await rows(engine, "traces"), await rows(engine, "spans")) == (0, 0)


async def test_a_trace_with_one_bad_assessment_is_not_started(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    said = [{"feedback": {"value": 1}}, {"feedback": {"value": 1}, "assessment_id": "../x"}]
    assert await refused(client, "POST", V3, json=info(new_id(), "0", assessments=said)) == "INVALID_PARAMETER_VALUE"
    assert await rows(engine, "traces") == 0


async def test_nul_characters_cost_no_span(client: httpx.AsyncClient) -> None:
    trace_id = new_id()
    happened = {"name": "e\0", "attributes": pairs({"k\0": "v\0"})}
    sent = span(trace_id, name="n\0", attributes={"k\0": "v\0", "mlflow.traceTag.t": "v\0"}, events=[happened])
    await export(client, sent, resource={"service.name": "s\0"})
    found = (await call(client, "GET", f"{V3}/get", params={"trace_id": trace_id}))["trace"]
    assert found["spans"][0]["name"] == "n\N{REPLACEMENT CHARACTER}"
    values = [attribute["value"]["string_value"] for attribute in found["spans"][0]["attributes"]]
    assert "v\0" in values
    assert found["trace_info"]["tags"]["t"] == "v\N{REPLACEMENT CHARACTER}"


async def test_halves_of_surrogate_pairs_can_be_read_back(client: httpx.AsyncClient) -> None:
    trace_id = new_id()
    await export(client, span(trace_id, attributes={"k": '{"x": "\\ud800"}'}))
    for path, query in ((f"{V3}/get", "trace_id"), ("/ajax-api/3.0/mlflow/get-trace-artifact", "request_id")):
        await call(client, "GET", path, params={query: trace_id})


async def test_infinities_are_readable_json(client: httpx.AsyncClient) -> None:
    trace_id = new_id()
    odd = [{"key": "x", "value": {"doubleValue": "NaN"}}, {"key": "y", "value": {"doubleValue": "-Infinity"}}]
    await export(client, span(trace_id, events=[{"name": "e", "attributes": odd}]) | {"attributes": odd})
    answer = await client.get("/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": trace_id})
    assert json.loads(answer.content, parse_constant=pytest.fail)["spans"][0]["events"][0]["attributes"]["x"] == "NaN"
    found = await client.get(f"{V3}/get", params={"trace_id": trace_id})
    json.loads(found.content, parse_constant=pytest.fail)


@pytest.mark.parametrize("depth", [80, 95, 100_000])
async def test_deep_values_are_kept_or_refused_but_never_break_a_reader(client: httpx.AsyncClient, depth: int) -> None:
    trace_id = new_id()
    await export(client, span(trace_id, attributes={"deep": "[" * depth + "]" * depth}))
    await call(client, "GET", f"{V3}/get", params={"trace_id": trace_id})
    await refused(client, "POST", "/v1/traces", content=b"[" * depth + b"]" * depth, headers=HEADERS)


async def test_a_body_that_unpacks_beyond_the_limit_is_refused(client: httpx.AsyncClient, settings: Settings) -> None:
    bomb = gzip.compress(b" " * (settings.max_body_bytes + 1))
    answer = await client.post("/v1/traces", content=bomb, headers=HEADERS | {"content-encoding": "gzip"})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{V3}/..%2Fx", None),
        ("GET", f"{V3}/get?trace_id=../x", None),
        ("GET", "/ajax-api/3.0/mlflow/get-trace-artifact?request_id=../x", None),
        (
            "GET",
            "/ajax-api/3.0/mlflow/get-trace-artifact?request_id=../x&path=0fe2a1a8-7d0c-4f3c-9a8e-000000000001",
            None,
        ),
        ("POST", V3, info("../x", "0")),
        ("POST", V3, info("tr-1", "0", tags={"k": "nul\0"})),
        ("POST", V3, info("tr-1", "../x")),
        ("POST", "/api/2.0/mlflow/traces/link-to-run", {"trace_ids": ["../x"], "run_id": "r"}),
        ("POST", "/api/2.0/mlflow/traces/link-to-run", {"trace_ids": ["x"], "run_id": "../r"}),
        ("PATCH", f"{V3}/..%2Fx/tags", {"key": "k", "value": "v"}),
        ("POST", f"{V3}/search", {"locations": [], "filter": "name RLIKE '('"}),
        ("POST", f"{V3}/search", {"locations": [], "filter": "name RLIKE '(a)\\1'"}),
        ("POST", f"{V3}/search", {"locations": [], "filter": f"name RLIKE '{'a' * 501}'"}),
    ],
)
async def test_hostile_requests_are_refused(client: httpx.AsyncClient, method: str, path: str, body: Any) -> None:
    await refused(client, method, path, json=body)


async def test_a_tag_cannot_send_the_server_to_other_files(client: httpx.AsyncClient) -> None:
    await call(client, "POST", V3, json=info("tr-1", "0"))
    store = "/api/2.0/mlflow-artifacts/artifacts"
    assert (await client.put(f"{store}/secret/traces.json", content=b"{}")).status_code == 200
    tag = {"key": "mlflow.artifactLocation", "value": "mlflow-artifacts:/secret"}
    await call(client, "PATCH", f"{V3}/tr-1/tags", json=tag)
    artifact = "/ajax-api/3.0/mlflow/get-trace-artifact"
    assert (await client.get(artifact, params={"request_id": "tr-1"})).status_code == 404


async def test_exports_of_one_trace_at_once_are_added_up(client: httpx.AsyncClient) -> None:
    trace_id = new_id()
    usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    sent = [span(trace_id, number, 1, attributes=usage, end_ms=number * 10) for number in range(2, 18)]
    started = client.post(V3, json=info(trace_id, "0", trace_metadata={"m": "x"}))
    await asyncio.gather(*(export(client, one) for one in sent), started)
    await export(client, span(trace_id, 1))
    found = (await call(client, "GET", f"{V3}/get", params={"trace_id": trace_id}))["trace"]
    assert len(found["spans"]) == 17
    assert json.loads(found["trace_info"]["trace_metadata"]["mlflow.trace.tokenUsage"])["total_tokens"] == 32
    assert found["trace_info"]["trace_metadata"]["m"] == "x"


async def test_exports_of_the_same_traces_in_other_orders_do_not_lock_each_other(client: httpx.AsyncClient) -> None:
    ids = [new_id() for _ in range(10)]
    exports = [[span(trace_id, number) for trace_id in ids[:: 1 if number % 2 else -1]] for number in range(1, 9)]
    await asyncio.gather(*(export(client, *spans) for spans in exports))
    found = await call(client, "GET", f"{V3}/batchGet", params={"trace_ids": ids})
    assert [len(trace["spans"]) for trace in found["traces"]] == [8] * 10


async def test_one_span_or_hundreds_take_as_many_statements(engine: AsyncEngine) -> None:
    statements: list[str] = []

    def record(*arguments: Any) -> None:
        statements.append(arguments[2])

    async def writes(number: int) -> int:
        ids = [new_id() for _ in range(number)]
        usage = {"mlflow.chat.tokenUsage": {"input_tokens": 1}}
        body = body_of(*(span(t, n, attributes=usage) for t in ids for n in (1, 2)))
        spans = parse_export(body, content_type="application/json", content_encoding="", limit_bytes=10**9)
        statements.clear()
        async with engine.begin() as connection:
            await log_spans(connection, "0", spans, "0" * 32)
            assert len(await queries.load(connection, ids)) == number
            assert await queries.delete(connection, 0, ids) == number
        return len(statements)

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    assert await writes(1) == await writes(200)


async def test_pages_of_a_search_neither_skip_nor_repeat_while_traces_arrive(client: httpx.AsyncClient) -> None:
    made = [new_id() for _ in range(5)]
    for trace_id in made:
        await call(client, "POST", V3, json=info(trace_id, "0"))
    request: dict[str, Any] = {"locations": [{"mlflow_experiment": {"experiment_id": "0"}}], "max_results": 2}
    found: list[str] = []
    while True:
        page = await call(client, "POST", f"{V3}/search", json=request)
        found += [trace["trace_id"] for trace in page["traces"]]
        if "next_page_token" not in page:
            break
        await call(client, "POST", V3, json=info(new_id(), "0", request_time="2026-01-01T00:00:00Z"))
        request["page_token"] = page["next_page_token"]
    assert sorted(found) == sorted(made)
    assert await refused(client, "POST", f"{V3}/search", json=request | {"filter": "name = 'x'"})
