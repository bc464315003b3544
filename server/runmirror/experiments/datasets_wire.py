"""Requests and answers about the datasets of experiments."""

from runmirror.wire import Wire


class SearchDatasets(Wire):
    experiment_ids: list[str] = []


class DatasetSummary(Wire):
    experiment_id: str
    name: str
    digest: str
    context: str | None = None


class DatasetSummaries(Wire):
    dataset_summaries: list[DatasetSummary] | None = None
