"""Requests and responses about experiments."""

from pydantic import Field

from runmirror.entities import Tag, ViewType
from runmirror.wire import Int64, Wire


class TagWire(Wire):
    key: str = Field(min_length=1)
    value: str = ""

    def to_tag(self) -> Tag:
        return Tag(self.key, self.value)


class ExperimentWire(Wire):
    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    last_update_time: int
    creation_time: int
    tags: list[TagWire] | None = None
    workspace: str = "default"  # MLflow without workspaces calls its only one so


class CreateExperiment(Wire):
    name: str = Field(min_length=1)
    artifact_location: str = ""
    tags: list[TagWire] = []


class ExperimentCreated(Wire):
    experiment_id: str


class ExperimentId(Wire):
    experiment_id: str = Field(min_length=1)


class ExperimentByName(Wire):
    experiment_name: str = Field(min_length=1)


class UpdateExperiment(ExperimentId):
    new_name: str = Field(min_length=1)


class SetExperimentTag(TagWire, ExperimentId):
    """`{experiment_id, key, value}`"""


class DeleteExperimentTag(ExperimentId):
    key: str = Field(min_length=1)


class ExperimentAnswer(Wire):
    experiment: ExperimentWire


class SearchExperiments(Wire):
    max_results: Int64 | None = None
    page_token: str = ""
    filter: str = ""
    order_by: list[str] = []
    view_type: ViewType = ViewType.ACTIVE_ONLY


class ExperimentsPage(Wire):
    experiments: list[ExperimentWire] | None = None
    next_page_token: str | None = None
