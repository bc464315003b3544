"""Spans of the server and the worker, as a collector receives them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from runmirror.app import create_app
from runmirror.mirror.azureml_transport import Transport
from runmirror.settings import Settings
from runmirror.telemetry.install import open_tracing
from runmirror.telemetry.spans import reset_tracing, set_tracing, span
from tests.server import clean_environment

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Collector:
    """What was sent to `/v1/traces`, with the resource of the last."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    service: str = ""

    def named(self, name: str) -> list[Span]:
        return [one for one in self.spans if one.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    made.service = attributes(resource.resource.attributes)["service.name"]
                    for scope in resource.scope_spans:
                        made.spans += scope.spans
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(told: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in told}


async def test_a_request_is_a_span_of_its_clients_trace_and_its_statements_are_below_it(
    settings: Settings, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "tracking")
    settings = settings.model_copy(update={"otel_endpoint": collector.url})
    assert settings.database_url is not None
    secret = "what-only-the-client-knows"
    async with LifespanManager(create_app(settings, settings.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            told = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r-7"}
            path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={secret}"
            assert (await client.get(path, headers=told)).status_code == 404
            run = (await client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0"})).json()["run"]["info"]
            point = {"run_id": run["run_id"], "key": secret, "value": 1.0, "timestamp": 1}
            assert (await client.post("/api/2.0/mlflow/runs/log-metric", json=point)).status_code == 200
            assert (await client.get(f"/{secret}")).status_code == 404
    [asked] = collector.named("GET /api/2.0/mlflow/experiments/get-by-name")
    assert (asked.trace_id.hex(), asked.parent_span_id.hex()) == (TRACE, PARENT)
    assert asked.kind == Span.SPAN_KIND_SERVER
    assert attributes(asked.attributes) == {
        "http.request.method": "GET", "http.route": "/api/2.0/mlflow/experiments/get-by-name",
        "http.response.status_code": 404, "url.scheme": "http", "runmirror.request_id": "r-7",
    }  # fmt: skip
    below = [one for one in collector.spans if one.parent_span_id == asked.span_id]
    assert [one.name for one in below] == ["SELECT"]
    assert "FROM experiments" in attributes(below[0].attributes)["db.query.text"]
    assert len(collector.named("POST /api/2.0/mlflow/runs/log-metric")) == 1, "hot ones too"
    assert len(collector.named("GET")) == 1, "what has no route has no name of a client's choosing"
    assert secret not in str(collector.spans)
    assert collector.service == "tracking"


async def test_a_request_to_azure_is_a_span_below_its_run_without_what_was_signed(
    settings: Settings, collector: Collector
) -> None:
    """The collector stands in for whatever answers."""
    settings = settings.model_copy(update={"otel_traces_endpoint": f"{collector.url}/v1/traces"})
    tracing = open_tracing(settings, "x")
    assert tracing is not None
    token = set_tracing(tracing)
    transport = Transport(settings)
    try:
        with span("mirror run", {"runmirror.run_id": "abc"}):
            answer = await transport.send("POST", f"{collector.url}/files/a?sig=secret", headers={}, has_effect=True)
        assert answer.status_code == 200
    finally:
        reset_tracing(token)
        await transport.close()
        await tracing.close()
    [run], [call] = collector.named("mirror run"), collector.named("POST")
    assert (call.parent_span_id, call.kind) == (run.span_id, Span.SPAN_KIND_CLIENT)
    told = attributes(call.attributes)
    assert (told["url.path"], told["http.response.status_code"]) == ("/files/a", 200)
    assert "secret" not in str(collector.spans)


def test_without_a_place_to_send_to_nothing_of_it_is_imported(settings: Settings) -> None:
    program = (
        "import sys\nfrom runmirror.settings import Settings\nfrom runmirror.app import create_app\n"
        "import runmirror.mirror.worker\ncreate_app(Settings(), 'postgresql://nowhere/none')\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    said = subprocess.check_output([sys.executable, "-c", program], env=clean_environment({}), text=True)
    assert said.strip() == "[]"
    assert open_tracing(settings, "x") is None
    off = settings.model_copy(update={"otel_endpoint": "http://127.0.0.1:9", "otel_sdk_disabled": True})
    assert open_tracing(off, "x") is None
