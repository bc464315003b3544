"""A source that is an Azure ML workspace: MLflow's REST with Azure's tokens, files by its artifact service.

Copies that a mirror made are passed over while their run is here, else a backup would come in twice.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from runmirror.importing.entities import OldExperiment, OldFile, OldModel, OldRegisteredModel, OldRun, OldTrace
from runmirror.importing.rest_api import RestApi
from runmirror.importing.rest_source import RestSource
from runmirror.importing.source import PointsOf, Root, SourceError
from runmirror.mirror.azureml_http import AzureClient
from runmirror.mirror.azureml_reader import AzureMLReader
from runmirror.mirror.azureml_workspace import parse_tracking_uri, workspace_at
from runmirror.mirror.credentials import Tokens
from runmirror.mirror.target import RemoteRun, TargetError
from runmirror.settings import Settings

COPY_TAG = "runmirror.run_id"


class AzureMLSource:
    """See `runmirror.importing.source.Source`."""

    def __init__(self, settings: Settings, uri: str, trust: object) -> None:
        try:
            host, workspace_id = parse_tracking_uri(uri)
        except ValueError as error:
            raise SourceError(str(error)) from error
        self.workspace_id: str | None = workspace_id
        self.identity = f"azureml:{workspace_id.lower()}"
        self._tokens = Tokens(settings)
        self._client = AzureClient(settings, self._tokens)
        workspace = workspace_at(host, workspace_id, None)
        self._reader = AzureMLReader(self._client, workspace)
        api = RestApi(f"{workspace.api_url}/mlflow/v2.0{workspace_id}", self._sign, trust=trust)
        self._rest = RestSource(api, self.identity)

    async def _sign(self) -> Mapping[str, str]:
        try:
            return {"Authorization": f"Bearer {await self._tokens.get()}"}
        except TargetError as error:
            raise SourceError(str(error)) from error

    async def experiments(self) -> Sequence[OldExperiment]:
        return await self._rest.experiments()

    async def runs(
        self, experiment_ids: Collection[str] | None, since_ms: int | None
    ) -> AsyncIterator[Sequence[OldRun]]:
        async for page in self._rest.runs(experiment_ids, since_ms):
            yield [run for run in page if COPY_TAG not in run.tags]

    def points(self, runs: Sequence[OldRun]) -> AsyncIterator[Sequence[PointsOf]]:
        return self._rest.points(runs)

    def models(self, experiment_ids: Collection[str] | None) -> AsyncIterator[Sequence[OldModel]]:
        return self._rest.models(experiment_ids)

    def registered_models(self) -> AsyncIterator[OldRegisteredModel]:
        return self._rest.registered_models()

    def traces(self, experiment_ids: Collection[str] | None, since_ms: int | None) -> AsyncIterator[Sequence[OldTrace]]:
        return self._rest.traces(experiment_ids, since_ms)

    async def list_files(self, root: Root) -> Sequence[OldFile]:
        if root.model_id:
            return []
        run = await self._run(root.run_id)
        found = []
        try:
            async for path in self._reader.paths(run):
                content = await self._reader.content(run, path)
                if content is not None:
                    found.append(OldFile(path, content.size_bytes, md5=content.md5))
        except TargetError as error:
            raise SourceError(str(error)) from error
        return found

    async def read_file(self, root: Root, path: str) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reader.read(await self._run(root.run_id), path):
                yield chunk
        except TargetError as error:
            raise SourceError(str(error)) from error

    async def _run(self, run_id: str) -> RemoteRun:
        return RemoteRun(await self._rest.experiment_of(run_id), run_id)

    async def close(self) -> None:
        await self._rest.close()
        await self._client.close()
