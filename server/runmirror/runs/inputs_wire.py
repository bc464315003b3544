"""Requests about what a run read (datasets, logged models) and made (logged models)."""

import re

from pydantic import Field

from runmirror.entities import Dataset, DatasetInput, Tag
from runmirror.errors import InvalidParameter
from runmirror.wire import Int64, RunIdWire, Wire

MAX_DATASET_NAME_LENGTH = 500
MAX_DATASET_DIGEST_LENGTH = 36
MAX_DATASET_SOURCE_LENGTH = 65535
MAX_DATASET_SCHEMA_LENGTH = 1048575
MAX_DATASET_PROFILE_LENGTH = 16777215
MAX_INPUT_TAG_KEY_LENGTH = 255
MAX_INPUT_TAG_VALUE_LENGTH = 500
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w\-]{0,63}", re.ASCII)


class InputTagIn(Wire):
    key: str = ""
    value: str = ""

    def to_tag(self) -> Tag:
        _check_length("key", self.key, MAX_INPUT_TAG_KEY_LENGTH)
        _check_length("value", self.value, MAX_INPUT_TAG_VALUE_LENGTH)
        return Tag(self.key, self.value)


class DatasetIn(Wire):
    name: str = ""
    digest: str = ""
    source_type: str = ""
    source: str = ""
    schema_text: str | None = Field(None, alias="schema")  # pydantic has a `schema` of its own
    profile: str | None = None

    def to_dataset(self) -> Dataset:
        _check_length("name", self.name, MAX_DATASET_NAME_LENGTH)
        _check_length("digest", self.digest, MAX_DATASET_DIGEST_LENGTH)
        _check_length("source", self.source, MAX_DATASET_SOURCE_LENGTH)
        _check_length("schema", self.schema_text or "", MAX_DATASET_SCHEMA_LENGTH)
        _check_length("profile", self.profile or "", MAX_DATASET_PROFILE_LENGTH)
        return Dataset(self.name, self.digest, self.source_type, self.source, self.schema_text, self.profile)


class DatasetInputIn(Wire):
    dataset: DatasetIn = DatasetIn()
    tags: list[InputTagIn] = []

    def to_input(self) -> DatasetInput:
        return DatasetInput(self.dataset.to_dataset(), tuple(tag.to_tag() for tag in self.tags))


class ModelInputIn(Wire):
    model_id: str = ""

    def to_model_id(self) -> str:
        """Raises `InvalidParameter` for what cannot be an id (MLflow keeps any text)."""
        if not _MODEL_ID.fullmatch(self.model_id):
            raise InvalidParameter(f"Invalid value {self.model_id[:80]!r} for parameter 'model_id' supplied.")
        return self.model_id


class ModelOutputIn(ModelInputIn):
    step: Int64 = 0


class LogInputs(RunIdWire):
    datasets: list[DatasetInputIn] = []
    models: list[ModelInputIn] = []


class LogOutputs(RunIdWire):
    models: list[ModelOutputIn]


def _check_length(name: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise InvalidParameter(f"'{name}' exceeds the maximum length of {limit} characters")
