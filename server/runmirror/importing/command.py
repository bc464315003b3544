"""What `runmirror import` does and tells."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror import audit
from runmirror.artifacts.service import Artifacts
from runmirror.artifacts.store import create_store
from runmirror.db import create_engine, hot_connections
from runmirror.importing.check import Check
from runmirror.importing.plan import tell_plan
from runmirror.importing.progress import Progress
from runmirror.importing.report import Report, Tell
from runmirror.importing.session import Session
from runmirror.importing.source import Source
from runmirror.importing.sources import SignIn, open_source
from runmirror.importing.task import Task, Wish
from runmirror.settings import Settings


@dataclass(frozen=True, slots=True)
class How:
    """What is asked for, besides what to bring."""

    artifacts_from: str | None = None
    source_name: str | None = None
    sign_in: SignIn = field(default_factory=SignIn)
    dry_run: bool = False
    verify: bool = True
    verify_only: bool = False
    as_json: bool = False


async def import_from(settings: Settings, url: str, address: str, *, wish: Wish, how: How, tell: Tell) -> bool:
    """Bring all of it, and whether both sides agree then. Raises `SourceError`, `UnknownExperiment`."""
    report, progress = Report(tell, how.as_json), Progress(quiet=how.as_json)
    async with _opened(settings, url, address, wish, how) as (engine, artifacts, source):
        name = how.source_name or source.identity
        task = Task(engine, source, wish, report, progress, name)
        if how.dry_run:
            await tell_plan(task)
            return True
        if not how.verify_only:
            async with engine.begin() as connection:
                await audit.record(connection, "import", name)
            await Session(task, artifacts, chunks=settings.metric_chunks).run()
        if how.verify or how.verify_only:
            await Check(task).run()
        report.end(name)
    return report.agrees


@asynccontextmanager
async def _opened(
    settings: Settings, url: str, address: str, wish: Wish, how: How
) -> AsyncIterator[tuple[AsyncEngine, Artifacts, Source]]:
    engine = create_engine(settings.model_copy(update={"db_pool_size": 2 * wish.workers + 2}), url)
    hot = hot_connections(settings, url)
    store = create_store(settings)
    source = None
    try:
        source = open_source(settings, address, artifacts_from=how.artifacts_from, sign_in=how.sign_in)
        reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        yield engine, Artifacts(store, reading=reading.connect, writing=engine.begin, hot=hot), source
    finally:
        if source is not None:
            await source.close()
        await store.close()
        await hot.close()
        await engine.dispose()
