"""Requests and responses of the model registry."""

from typing import Annotated

from pydantic import Field, StrictBool

from runmirror.entities import Tag
from runmirror.wire import Int64, Wire

DEFAULT_MODELS_PER_PAGE = 100
DEFAULT_VERSIONS_PER_PAGE = 200_000

Required = Annotated[str, Field(min_length=1)]


class TagIn(Wire):
    key: str = ""
    value: str = ""

    def to_tag(self) -> Tag:
        return Tag(self.key, self.value)


class ModelName(Wire):
    name: Required


class VersionOf(ModelName):
    """`{name, version}`: `version` is a number, sent as text."""

    version: Required


class DownloadUriOf(Wire):
    name: str = ""
    version: str = ""


class CreateModel(ModelName):
    tags: list[TagIn] = []
    description: str = ""


class RenameModel(ModelName):
    new_name: Required


class UpdateModel(ModelName):
    description: str = ""


class SetModelTag(ModelName):
    key: Required
    value: str = ""


class DeleteModelTag(ModelName):
    key: Required


class AliasOf(ModelName):
    alias: Required


class SetAlias(AliasOf):
    version: Required


class LatestVersionsOf(ModelName):
    stages: list[str] = []


class Search(Wire):
    filter: str = ""
    order_by: list[str] = []
    page_token: str = ""


class SearchModels(Search):
    max_results: Int64 = DEFAULT_MODELS_PER_PAGE


class SearchVersions(Search):
    max_results: Int64 = DEFAULT_VERSIONS_PER_PAGE


class CreateVersion(ModelName):
    """`run_id` and `model_id`: None when they are not said, which is not the same as empty."""

    source: Required
    run_id: str | None = None
    model_id: str | None = None
    tags: list[TagIn] = []
    run_link: str = ""
    description: str = ""


class UpdateVersion(VersionOf):
    description: str | None = None


class TransitionStage(VersionOf):
    stage: Required
    archive_existing_versions: StrictBool = False


class SetVersionTag(VersionOf):
    key: Required
    value: str = ""


class DeleteVersionTag(VersionOf):
    key: Required


class TagOut(Wire):
    key: str
    value: str


class AliasOut(Wire):
    alias: str
    version: str


class VersionWire(Wire):
    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    current_stage: str
    description: str | None = None
    source: str
    run_id: str
    run_link: str
    status: str = "READY"  # a version's files are there before it is registered
    tags: list[TagOut] | None = None
    aliases: list[str] | None = None


class ModelWire(Wire):
    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    latest_versions: list[VersionWire] | None = None
    tags: list[TagOut] | None = None
    aliases: list[AliasOut] | None = None


class ModelAnswer(Wire):
    registered_model: ModelWire


class ModelsPage(Wire):
    registered_models: list[ModelWire] | None = None
    next_page_token: str | None = None


class VersionAnswer(Wire):
    model_version: VersionWire


class VersionsAnswer(Wire):
    model_versions: list[VersionWire] | None = None


class VersionsPage(VersionsAnswer):
    next_page_token: str | None = None


class DownloadUri(Wire):
    artifact_uri: str
