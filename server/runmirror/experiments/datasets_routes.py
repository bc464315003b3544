"""HTTP: which datasets the runs of some experiments read."""

from fastapi import APIRouter

from runmirror.db import ReadConnection
from runmirror.errors import InvalidParameter
from runmirror.experiments import datasets_queries
from runmirror.experiments.datasets_wire import DatasetSummaries, DatasetSummary, SearchDatasets
from runmirror.names import parse_experiment_id
from runmirror.routing import Permission, mlflow_route

router = APIRouter(tags=["experiments"])

MAX_EXPERIMENTS = 20
MAX_SUMMARIES = 1000


@mlflow_route(router, "POST", "/experiments/search-datasets", permission=Permission.READ)
async def search_datasets(request: SearchDatasets, connection: ReadConnection) -> DatasetSummaries:
    """Name, digest and context of each dataset of the experiments."""
    return DatasetSummaries(dataset_summaries=await dataset_summaries(connection, request.experiment_ids) or None)


async def dataset_summaries(connection: ReadConnection, experiment_ids: list[str]) -> list[DatasetSummary]:
    """What the endpoint answers, for GraphQL too."""
    if not experiment_ids:
        raise InvalidParameter("SearchDatasets request must specify at least one experiment_id.")
    if len(experiment_ids) > MAX_EXPERIMENTS:
        raise InvalidParameter(
            f"SearchDatasets request cannot specify more than {MAX_EXPERIMENTS} experiment_ids. "
            f"Received {len(experiment_ids)} experiment_ids."
        )
    keys = [parse_experiment_id(experiment_id) for experiment_id in experiment_ids]
    return [
        DatasetSummary(experiment_id=str(row.experiment_id), name=row.name, digest=row.digest, context=row.context)
        for row in await datasets_queries.summaries(connection, keys, limit=MAX_SUMMARIES)
    ]
