"""Requests and responses about evaluation datasets; records, tags, schema and profile travel as JSON inside a text."""

from typing import Annotated

from pydantic import Field

from runmirror.wire import Int64, Wire

MAX_NAME_LENGTH = 255
DEFAULT_MAX_RESULTS = 1000

Required = Annotated[str, Field(min_length=1)]


class CreateDataset(Wire):
    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
    experiment_ids: list[str] = []
    tags: str = ""


class SearchDatasets(Wire):
    experiment_ids: list[str] = []
    filter_string: str = ""
    max_results: Int64 = DEFAULT_MAX_RESULTS
    order_by: list[str] = []
    page_token: str = ""


class SetTags(Wire):
    tags: Required


class Experiments(Wire):
    experiment_ids: list[str] = []


class UpsertRecords(Wire):
    records: Required


class GetRecords(Wire):
    max_results: Int64 = 0
    page_token: str = ""


class DeleteRecords(Wire):
    dataset_record_ids: list[str] = []


class DatasetWire(Wire):
    dataset_id: str
    name: str
    tags: str
    schema_: str | None = Field(None, serialization_alias="schema")  # pydantic has a `schema` of its own
    profile: str | None = None
    digest: str
    created_time: int
    last_update_time: int
    created_by: str | None = None
    last_updated_by: str | None = None
    experiment_ids: list[str] | None = None


class DatasetAnswer(Wire):
    dataset: DatasetWire


class DatasetsPage(Wire):
    datasets: list[DatasetWire] | None = None
    next_page_token: str | None = None


class ExperimentIds(Wire):
    experiment_ids: list[str] | None = None


class RecordsWritten(Wire):
    inserted_count: int
    updated_count: int


class RecordsPage(Wire):
    records: str
    next_page_token: str | None = None


class RecordsDeleted(Wire):
    deleted_count: int
