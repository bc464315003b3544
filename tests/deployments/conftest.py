"""A registered model with its files, an emulated workspace, and a deployer that is driven step by step."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runmirror.artifacts.files import Store
from runmirror.deployments import queries, service
from runmirror.deployments.deployer import Deployer
from runmirror.deployments.entities import Deployment, Kind, Spec
from runmirror.mirror.worker import Worker
from runmirror.registry import service as registry
from runmirror.settings import Settings
from tests.azureml_emulator.conftest import azureml_python
from tests.mirror.conftest import azure_settings, azure_worker, emulator, running_emulator, settings, source, store
from tests.mirror.factories import Source, SourceRun

__all__ = [
    "azure_settings", "azure_worker", "azureml_python", "emulator", "running_emulator", "settings", "source", "store",
]  # fmt: skip

CONDA = b"dependencies:\n- python=3.11\n- pip:\n  - mlflow\n"
DEADLINE_S = 60.0


def is_done(held: Deployment) -> bool:
    return not held.state.is_open


@dataclass
class Bench:
    """Asks for deployments as the routes do, and does a worker's steps for them."""

    settings: Settings
    engine: AsyncEngine
    store: Store
    worker: Worker

    async def mirror(self) -> None:
        await self.worker.drain()

    async def deploy(self, name: str = "prices-live", kind: Kind = Kind.ENDPOINT, **options: Any) -> UUID:
        given = {"model": "models:/prices/1", "spec": Spec(), **options}
        async with self.engine.begin() as connection:
            made = await service.deploy(connection, self.settings, kind=kind, name=name, **given)
        return made.deployment_id

    async def delete(self, deployment_id: UUID) -> None:
        async with self.engine.begin() as connection:
            await service.delete(connection, self.settings, deployment_id)

    async def get(self, deployment_id: UUID) -> Deployment:
        async with self.engine.connect() as connection:
            found = await queries.get(connection, deployment_id)
        assert found is not None
        return found

    def deployer(self, **changes: Any) -> Deployer:
        return Deployer(self.settings.model_copy(update=changes), self.engine, self.store)

    async def until(
        self,
        deployment_id: UUID,
        is_so: Callable[[Deployment], bool] = lambda held: not held.state.is_open,
        **changes: Any,
    ) -> Deployment:
        """Work until it is so, by default until it is done."""
        deployer = self.deployer(**changes)
        deadline = time.monotonic() + DEADLINE_S
        try:
            while not is_so(held := await self.get(deployment_id)):
                assert time.monotonic() < deadline, held
                if not await deployer.round():
                    await asyncio.sleep(0.02)
            return held
        finally:
            await deployer.close()

    async def write(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)


@pytest.fixture
async def run(source: Source, engine: AsyncEngine) -> SourceRun:
    """A run with the files of a model, which is version 1 of `prices`."""
    made = await source.run()
    await made.upload("model/MLmodel", b"flavors: {}")
    await made.upload("model/conda.yaml", CONDA)
    async with engine.begin() as connection:
        await registry.create_model(connection, "prices", "", [])
    await version(engine, made)
    return made


async def version(engine: AsyncEngine, run: SourceRun) -> None:
    async with engine.begin() as connection:
        await registry.create_version(
            connection, "prices", source=f"runs:/{run.run_id.hex}/model", run_id=run.run_id.hex, model_id=None, tags=[],
            run_link="", description="",
        )  # fmt: skip


@pytest.fixture
async def bench(
    azure_settings: Settings, engine: AsyncEngine, store: Store, azure_worker: Worker, run: SourceRun
) -> Bench:
    """The workspace is linked and nothing is mirrored yet."""
    changes: dict[str, Any] = {"mirror_poll": azure_settings.mirror_settle}
    made = Bench(azure_settings.model_copy(update=changes), engine, store, azure_worker)
    await made.write(
        """INSERT INTO mirror_links (workspace_id, name, experiments, is_default, position)
           VALUES (:id, 'main', '{}', true, 1)""",
        id=azure_settings.azureml_workspace,
    )
    return made
