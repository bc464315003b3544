"""The SDK of OpenTelemetry, which reads its own settings (OTEL_…) but for where to send to, and no global of it is set.

Needs the extra `otel`; imported only where traces are sent.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runmirror import __version__
from runmirror.logs import request_id
from runmirror.telemetry import spans
from runmirror.telemetry.spans import Tell

_LONGEST_STATEMENT = 2000
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Tracing:
    """Spans of one process, gathered and sent by a thread of the SDK."""

    def __init__(self, endpoint: str, service: str) -> None:
        resource = Resource({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self.tracer = self._provider.get_tracer("runmirror", __version__)
        self._propagator = TraceContextTextMapPropagator()

    async def close(self) -> None:
        """Send what is there; a collector that does not answer is waited for as long as the SDK does."""
        await asyncio.to_thread(self._provider.shutdown)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any], *, is_call: bool = False) -> Iterator[Tell]:
        kind = SpanKind.CLIENT if is_call else SpanKind.INTERNAL
        with self._started(name, kind=kind, attributes=attributes) as made:
            yield made.set_attribute

    @contextmanager
    def _started(
        self, name: str, *, kind: SpanKind, attributes: Mapping[str, Any], context: Context | None = None
    ) -> Iterator[Span]:
        """Of what goes wrong the kind is told, not the words: they may hold what a client wrote."""
        with self.tracer.start_as_current_span(
            name, context, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as made:
            try:
                yield made
            except BaseException as error:
                made.set_attribute("error.type", type(error).__name__)
                made.set_status(Status(StatusCode.ERROR))
                raise

    def request(self, method: str, scope: Scope) -> AbstractContextManager[Span]:
        """A span of the client's trace, if it tells of one."""
        attributes = {"http.request.method": method, "url.scheme": scope["scheme"]}
        context = self.context_of(scope["headers"])
        return self._started(method, kind=SpanKind.SERVER, attributes=attributes, context=context)

    def context_of(self, headers: list[tuple[bytes, bytes]]) -> Context:
        """The client's trace, if it tells of one (`traceparent`)."""
        told = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in headers
            if name in {b"traceparent", b"tracestate"}
        }
        return self._propagator.extract(told)

    def watch(self, engine: AsyncEngine) -> None:
        """A span for each statement of what is traced: its text, in which values are parameters, and never those."""
        tracer, place = self.tracer, {"db.system.name": "postgresql"}

        def begun(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
            if context is None or not get_current_span().is_recording():
                return
            text = " ".join(statement.split())
            attributes = {**place, "db.query.text": text[:_LONGEST_STATEMENT]}
            context.runmirror_span = tracer.start_span(
                text.partition(" ")[0].upper(), kind=SpanKind.CLIENT, attributes=attributes
            )

        def done(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
            made = getattr(context, "runmirror_span", None)
            if made is not None:
                made.end()

        def failed(error: Any) -> None:
            made = getattr(error.execution_context, "runmirror_span", None)
            if made is not None:
                kind = str(
                    getattr(error.original_exception, "sqlstate", None) or type(error.original_exception).__name__
                )
                made.set_attribute("error.type", kind)
                made.set_status(Status(StatusCode.ERROR))
                made.end()

        event.listen(engine.sync_engine, "before_cursor_execute", begun)
        event.listen(engine.sync_engine, "after_cursor_execute", done)
        event.listen(engine.sync_engine, "handle_error", failed)


class TraceRequests:
    """ASGI middleware: a span for each request, named by its route; addresses and bodies are not in it."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        token = spans.set_tracing(self._tracing)
        try:
            with self._tracing.request(method, scope) as made:

                async def noted(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        made.set_attribute("http.response.status_code", message["status"])
                        if message["status"] >= 500:
                            made.set_status(Status(StatusCode.ERROR))
                    await send(message)

                await self.app(scope, receive, noted)
                made.set_attribute("runmirror.request_id", request_id.get())
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    made.update_name(f"{method} {route}")
                    made.set_attribute("http.route", route)
        finally:
            spans.reset_tracing(token)
