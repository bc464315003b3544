"""HTTP of evaluation datasets: parse, call one function, answer."""

import json
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror import audit
from runmirror.auth import permits
from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import EvaluationDatasetNotFound
from runmirror.evaluation_datasets import queries, records_queries, service, wire
from runmirror.evaluation_datasets.records import Record, source_id
from runmirror.evaluation_datasets.search import search
from runmirror.routing import Permission, mlflow_route
from runmirror.search.paging import check_max_results
from runmirror.wire import Empty

router = APIRouter(tags=["evaluation datasets"])
_route = partial(mlflow_route, router, version="3.0")


@_route("POST", "/datasets/create", permission=Permission.EDIT)
async def create_dataset(request: wire.CreateDataset, connection: WriteConnection) -> wire.DatasetAnswer:
    """A new dataset without records; names need not be unique."""
    dataset_id = await service.create(
        connection, name=request.name, tags=request.tags, experiment_ids=request.experiment_ids
    )
    dataset = await _load(connection, dataset_id)
    dataset.experiment_ids = request.experiment_ids or None
    return wire.DatasetAnswer(dataset=dataset)


@_route("POST", "/datasets/search", permission=Permission.READ)
async def search_evaluation_datasets(request: wire.SearchDatasets, connection: ReadConnection) -> wire.DatasetsPage:
    """Datasets of some experiments, or of all, that a filter selects."""
    dataset_ids, token = await search(connection, request)
    rows = await queries.load(connection, dataset_ids)
    return wire.DatasetsPage(datasets=[_to_wire(row) for row in rows] or None, next_page_token=token)


@_route("GET", "/datasets/search", permission=Permission.READ)
async def search_evaluation_datasets_by_query(
    request: Annotated[wire.SearchDatasets, Query()], connection: ReadConnection
) -> wire.DatasetsPage:
    """The same as the POST."""
    return await search_evaluation_datasets(request, connection)


@_route("GET", "/datasets/{dataset_id}", permission=Permission.READ)
async def get_dataset(dataset_id: str, connection: ReadConnection) -> wire.DatasetAnswer:
    """A dataset without its records."""
    return wire.DatasetAnswer(dataset=await _load(connection, dataset_id))


@_route("DELETE", "/datasets/{dataset_id}", permission=Permission.MANAGE)
async def delete_dataset(dataset_id: str, connection: WriteConnection) -> Empty:
    """Erase a dataset with its records; one that is not there is gone already."""
    if await queries.delete(connection, dataset_id):
        await audit.record(connection, "evaluation_dataset.delete", dataset_id)
    return Empty()


@_route("PATCH", "/datasets/{dataset_id}/tags", permission=Permission.EDIT)
async def set_dataset_tags(dataset_id: str, request: wire.SetTags, connection: WriteConnection) -> Empty:
    """Set or overwrite tags."""
    await service.set_tags(connection, dataset_id, request.tags)
    return Empty()


@_route("DELETE", "/datasets/{dataset_id}/tags/{key}", permission=Permission.EDIT)
async def delete_dataset_tag(dataset_id: str, key: str, connection: WriteConnection) -> Empty:
    """Delete one tag, if it is there."""
    await queries.delete_tag(connection, dataset_id, key)
    return Empty()


@_route("GET", "/datasets/{dataset_id}/experiment-ids", permission=Permission.READ)
async def get_dataset_experiment_ids(dataset_id: str, connection: ReadConnection) -> wire.ExperimentIds:
    """The experiments a dataset is in, those that the caller may read."""
    found = await permits.current().readable(connection, await queries.experiments_of(connection, dataset_id))
    return wire.ExperimentIds(experiment_ids=[str(experiment_id) for experiment_id in found] or None)


@_route("POST", "/datasets/{dataset_id}/add-experiments", permission=Permission.EDIT)
async def add_dataset_to_experiments(
    dataset_id: str, request: wire.Experiments, connection: WriteConnection
) -> wire.DatasetAnswer:
    """Put a dataset into experiments."""
    await service.add_experiments(connection, dataset_id, request.experiment_ids)
    return wire.DatasetAnswer(dataset=await _load(connection, dataset_id))


@_route("POST", "/datasets/{dataset_id}/remove-experiments", permission=Permission.EDIT)
async def remove_dataset_from_experiments(
    dataset_id: str, request: wire.Experiments, connection: WriteConnection
) -> wire.DatasetAnswer:
    """Take a dataset out of experiments."""
    await service.remove_experiments(connection, dataset_id, request.experiment_ids)
    return wire.DatasetAnswer(dataset=await _load(connection, dataset_id))


@_route("POST", "/datasets/{dataset_id}/records", permission=Permission.EDIT)
async def upsert_dataset_records(
    dataset_id: str, request: wire.UpsertRecords, connection: WriteConnection
) -> wire.RecordsWritten:
    """Add records; those with inputs that are there already are merged into the stored ones."""
    inserted, updated = await service.upsert_records(connection, dataset_id, request.records)
    return wire.RecordsWritten(inserted_count=inserted, updated_count=updated)


@_route("GET", "/datasets/{dataset_id}/records", permission=Permission.READ)
async def get_dataset_records(
    dataset_id: str, request: Annotated[wire.GetRecords, Query()], connection: ReadConnection
) -> wire.RecordsPage:
    """One page of records, as a JSON list inside a text."""
    max_results = request.max_results or wire.DEFAULT_MAX_RESULTS
    check_max_results(max_results)
    found, token = await records_queries.page(connection, dataset_id, max_results, request.page_token)
    shown = json.dumps([_record_to_wire(dataset_id, record) for record in found])
    return wire.RecordsPage(records=shown, next_page_token=token)


@_route("DELETE", "/datasets/{dataset_id}/records", permission=Permission.EDIT)
async def delete_dataset_records(
    dataset_id: str, request: wire.DeleteRecords, connection: WriteConnection
) -> wire.RecordsDeleted:
    """Delete records by id."""
    deleted = await service.delete_records(connection, dataset_id, request.dataset_record_ids)
    return wire.RecordsDeleted(deleted_count=deleted)


async def _load(connection: AsyncConnection, dataset_id: str) -> wire.DatasetWire:
    rows = await queries.load(connection, [dataset_id])
    if not rows:
        raise EvaluationDatasetNotFound(dataset_id)
    return _to_wire(rows[0])


def _to_wire(row: Row[Any]) -> wire.DatasetWire:
    return wire.DatasetWire(
        dataset_id=row.dataset_id,
        name=row.name,
        tags=json.dumps(dict(row.tags or ())),
        schema_=row.schema,
        profile=_profile(row.num_records),
        digest=row.digest,
        created_time=row.created_time_ms,
        last_update_time=row.last_update_time_ms,
        created_by=row.created_by,
        last_updated_by=row.last_updated_by,
    )


def _profile(num_records: int | None) -> str | None:
    """As MLflow has it: nothing before the first record, and the text `null` when the last one is deleted."""
    return None if num_records is None else json.dumps({"num_records": num_records} if num_records else None)


def _record_to_wire(dataset_id: str, record: Record) -> dict[str, Any]:
    shown = {
        "dataset_record_id": record.record_id,
        "dataset_id": dataset_id,
        "inputs": record.inputs,
        "outputs": record.outputs,
        "expectations": record.expectations,
        "tags": record.tags,
        "source": record.source,
        "source_id": source_id(record.source) if record.source else None,
        "source_type": record.source["source_type"] if record.source else None,
        "created_time": record.created_time_ms,
        "last_update_time": record.last_update_time_ms,
        "created_by": record.created_by,
        "last_updated_by": record.last_updated_by,
    }
    return {key: value for key, value in shown.items() if value is not None}
