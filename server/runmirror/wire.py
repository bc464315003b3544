"""MLflow's wire: protobuf's JSON, with its quirks learned once here.

Source: the installed `mlflow` package (`mlflow.protos.service_pb2`, `mlflow.utils.proto_json_utils`).
- absent and `null` are the same; unknown fields are ignored; empty lists may be left out;
- 64-bit integers arrive as numbers or as decimal text, and leave as numbers;
- NaN and the infinities travel as text; MLflow's SQL store keeps an infinity as the largest finite double.
"""

import math
import re
import sys
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from runmirror.errors import InvalidParameter

RUN_ID = re.compile(r"^[0-9a-f]{32}\Z")
EXPERIMENT_ID = re.compile(r"^[0-9]{1,19}\Z")
INT64_MAX = 2**63 - 1


def _whole_number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a whole number")
    return value


def finite_or_nan(value: float) -> float:
    """An infinity becomes the largest double of its sign, as MLflow's SQL store keeps it."""
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


Int64 = Annotated[int, BeforeValidator(_whole_number), Field(ge=-INT64_MAX - 1, le=INT64_MAX)]
MetricValue = Annotated[float, BeforeValidator(_whole_number), AfterValidator(finite_or_nan)]


class Wire(BaseModel):
    """A request or response of MLflow's REST API."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="strings", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if isinstance(value, dict) and None in value.values():
            return {key: item for key, item in value.items() if item is not None}
        return value


class Empty(Wire):
    """`{}`: the answer of a write that has nothing to say."""


class RunIdWire(Wire):
    """A request about one run; `run_uuid` is the name that clients before MLflow 1.0 used."""

    run_id: str = ""
    run_uuid: str = ""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> "RunIdWire":
        if not (self.run_id or self.run_uuid):
            raise InvalidParameter(missing("run_id"))
        return self

    @property
    def the_run_id(self) -> str:
        return self.run_id or self.run_uuid


def missing(name: str) -> str:
    """MLflow's sentence about a required field that is not there."""
    return (
        f"Missing value for required parameter '{name}'. "
        "See the API docs for more information about request parameters."
    )
