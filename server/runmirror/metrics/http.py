"""Counts what is answered, by route: a few microseconds a request.

Where one `serve` runs several API processes, each keeps its counts in files of a folder they share (the library's
multiprocess mode, PROMETHEUS_MULTIPROC_DIR), so whichever process is asked tells the numbers of all.
"""

import logging
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

NO_ROUTE = "none"

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a count began would double the series, and nobody asks


class HttpMetrics:
    """What the API processes of one server count; a label is a route's template, never what a client wrote."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "runmirror_http_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "runmirror_http_request_duration_seconds", "From a request's head to the end of its answer.",
            ["method", "route"], buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self._in_use = Gauge(
            "runmirror_db_pool_in_use", "Connections in use of the API processes' pools, without those of hot writes.",
            multiprocess_mode="livesum", registry=self.registry,
        )  # fmt: skip
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answer; the labelled children are kept, because to look them up costs more than to count."""
        method = method if method in _METHODS else "other"
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._counters[method, route, status] = self._requests.labels(method, route, str(status))
        histogram = self._histograms.get((method, route))
        if histogram is None:
            histogram = self._histograms[method, route] = self._seconds.labels(method, route)
        counter.inc()
        histogram.observe(seconds)

    def watch(self, engine: AsyncEngine) -> None:
        """Count the pool's connections as they are taken and given back."""
        event.listen(engine.sync_engine, "checkout", lambda *_: self._in_use.inc())
        event.listen(engine.sync_engine, "checkin", lambda *_: self._in_use.dec())


class CountRequests:
    """ASGI middleware, outside of all that may refuse a request; `logged`: a line of the log for each."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, *, logged: bool = False) -> None:
        self.app = app
        self.metrics = metrics
        self.logged = logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = perf_counter()
        status = 500  # what an exception is answered with, further out

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            seconds = perf_counter() - begun
            self.metrics.count(scope["method"], _template(scope), status, seconds)
            if self.logged:
                _log(scope, status, seconds)


def _log(scope: Scope, status: int, seconds: float) -> None:
    """The route and not the address: paths and queries name files, and may hold what is nobody's business."""
    method, route = scope["method"] if scope["method"] in _METHODS else "other", _template(scope)
    client, _ = scope.get("client") or ("", 0)
    milliseconds = round(seconds * 1000, 1)
    fields = {"method": method, "route": route, "status": status, "ms": milliseconds, "client": client}
    log.info("%s %s %s in %s ms for %s", method, route, status, milliseconds, client, extra={"fields": fields})


def _template(scope: Scope) -> str:
    route: Any = scope.get("route")
    return getattr(route, "path", NO_ROUTE)
