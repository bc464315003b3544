"""Several workspaces in memory, linked under their own names."""

from collections import defaultdict
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.mirror import destinations
from runmirror.mirror.link import Link, Wish, unlink, write_link
from runmirror.mirror.target import Target
from runmirror.settings import Settings
from tests.mirror.conftest import WORKSPACE_ID
from tests.mirror.factories import SourceRun
from tests.mirror.memory_target import MemoryTarget


def arm_id(name: str) -> str:
    return WORKSPACE_ID.rpartition("/")[0] + f"/{name}"


class Workspaces:
    """`workspaces["a"]` is the target behind the workspace of that name."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.targets: defaultdict[str, MemoryTarget] = defaultdict(MemoryTarget)

    def __getitem__(self, name: str) -> MemoryTarget:
        return self.targets[name]

    async def open(self, settings: Settings, link: Link) -> tuple[Target, Link]:
        return await self[link.own_name].open(settings, link)

    async def link(self, workspace: str, *patterns: str, default: bool | None = None, name: str | None = None) -> None:
        """As `runmirror link --name`."""
        wish = Wish(name or workspace, patterns or None, default)
        async with self.engine.begin() as connection:
            await write_link(connection, Link(arm_id(workspace)), wish)

    async def unlink(self, name: str) -> None:
        await unlink(self.engine, name)

    async def route(self) -> None:
        """As a worker does before it claims."""
        async with self.engine.begin() as connection:
            while await destinations.route(connection, settle=timedelta(0)):
                pass

    async def of(self, run: SourceRun) -> str | None:
        """The name of the link that the run goes to."""
        await self.route()
        async with self.engine.connect() as connection:
            name: str | None = await connection.scalar(
                text("SELECT name FROM mirrors JOIN mirror_links USING (link_id) WHERE run_id = :run_id"),
                {"run_id": run.run_id},
            )
        return name

    def holders(self, run: SourceRun) -> set[str]:
        """In which workspaces the run stands."""
        tag = ("runmirror.run_id", run.run_id.hex)
        return {
            name
            for name, target in self.targets.items()
            if any(tag in remote.tags.items() for remote in target.runs.values())
        }
