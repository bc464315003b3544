"""HTTP of this slice."""

import asyncio
import logging
from time import monotonic

import asyncpg
from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import __version__
from runmirror.metrics.http import HttpMetrics
from runmirror.metrics.mirror import MirrorMetrics
from runmirror.metrics.shared import forget_dead, shared_folder
from runmirror.mirror.overview import Overview, overview
from runmirror.probes import MLFLOW_VERSION
from runmirror.routing import Permission, route
from runmirror.settings import Settings

log = logging.getLogger(__name__)

router = APIRouter(tags=["metrics"])

_KEPT_S = 1.0
_PATIENCE_S = 5.0  # Prometheus waits ten seconds


class Glance:
    """The last look at the mirror, kept for a second: however many ask, the database is asked once."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._seen: Overview | None = None
        self._until = float("-inf")

    async def look(self, engine: AsyncEngine) -> Overview | None:
        """None when the database cannot be asked."""
        async with self._lock:
            if monotonic() >= self._until:
                self._seen = await _look(engine)
                self._until = monotonic() + _KEPT_S
            return self._seen


async def _look(engine: AsyncEngine) -> Overview | None:
    try:
        async with asyncio.timeout(_PATIENCE_S), engine.connect() as connection:
            return await overview(connection)
    except (SQLAlchemyError, asyncpg.PostgresError, OSError) as error:
        log.warning("the mirror's numbers cannot be read: %s", type(error).__name__)
        return None


class ServerMetrics:
    """What does not change while the server runs."""

    def __init__(self, settings: Settings) -> None:
        self._pool = settings.db_pool_size * settings.workers

    def collect(self) -> list[Metric]:
        build = GaugeMetricFamily("runmirror_build_info", "The version that runs.", labels=["version", "mlflow"])
        build.add_metric([__version__, MLFLOW_VERSION], 1)
        size = GaugeMetricFamily(
            "runmirror_db_pool_size", "Database connections the API processes may have.", self._pool
        )
        return [build, size]


@route(router, "GET", "/metrics", permission=Permission.READ, response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus' text format; without a database still what the server itself counts."""
    state = request.app.state
    seen = await state.glance.look(state.engine)
    registry = CollectorRegistry()
    registry.register(ServerMetrics(state.settings))
    registry.register(MirrorMetrics(seen))
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    body = await asyncio.to_thread(lambda: encode(_with_counts(registry, state.http_metrics)))
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _with_counts(registry: CollectorRegistry, counts: HttpMetrics) -> CollectorRegistry:
    folder = shared_folder()
    if folder is None:
        registry.register(counts.registry)
    else:
        forget_dead(folder)
        MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry
