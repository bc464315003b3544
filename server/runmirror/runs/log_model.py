"""runs/log-model: models as clients before MLflow 3 record them, in the run's tag `mlflow.log-model.history`."""

import json
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.db import WriteConnection
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, mlflow_route
from runmirror.runs import batch_queries, writes
from runmirror.wire import Empty, Wire

router = APIRouter(tags=["runs"])

HISTORY_TAG = "mlflow.log-model.history"
_MANDATORY = ("artifact_path", "flavors", "utc_time_created", "run_id")

_HISTORY = text("SELECT value FROM tags WHERE run_id = :run_id AND key = :key AND value IS NOT NULL")


class LogModel(Wire):
    """`model_json` is the content of a model's MLmodel file, as JSON."""

    run_id: str = Field(min_length=1)
    model_json: str = Field(min_length=1)

    def entry(self) -> dict[str, Any]:
        """What the history keeps of the model. Raises `InvalidParameter` when it is not the description of one."""
        try:
            model = json.loads(self.model_json)
        except ValueError as error:
            raise InvalidParameter(
                f"Malformed model info. \n {self.model_json[:1000]} \n is not a valid JSON."
            ) from error
        if not isinstance(model, dict):
            raise InvalidParameter("Malformed model info: it must be a JSON object.")
        if absent := {name for name in _MANDATORY if name not in model}:
            raise InvalidParameter(f"Model json is missing mandatory fields: {absent}")
        flavors = model["flavors"] or {}
        if not isinstance(flavors, dict):
            raise InvalidParameter("Malformed model info: 'flavors' must be a JSON object.")
        kept = {name: model[name] for name in ("run_id", "artifact_path") if model[name] is not None}
        kept |= {"utc_time_created": str(model["utc_time_created"]), "model_uuid": model.get("model_uuid")}
        return kept | {"flavors": {name: _without_config(flavor) for name, flavor in flavors.items()}}


@mlflow_route(router, "POST", "/runs/log-model", permission=Permission.EDIT)
async def log_model(request: LogModel, connection: WriteConnection) -> Empty:
    """Add a model to the history of its run."""
    await append_to_history(connection, request.run_id, request.entry())
    return Empty()


async def append_to_history(connection: AsyncConnection, run_id: str, entry: dict[str, Any]) -> None:
    """The tag is one JSON list, so it is never cut, however long: half a list could not be added to."""
    write = await writes.begin(connection, run_id)
    history = _parsed(await connection.scalar(_HISTORY, {"run_id": write.run_id, "key": HISTORY_TAG}))
    value = json.dumps([*history, entry])
    await batch_queries.set_tags(connection, write.run_id, write.seq, {HISTORY_TAG: value})


def _parsed(value: str | None) -> list[Any]:
    try:
        history = json.loads(value) if value else []
    except ValueError:
        history = None
    if not isinstance(history, list):
        raise InvalidParameter(f"The run's tag {HISTORY_TAG} is not a JSON list, so nothing can be added to it.")
    return history


def _without_config(flavor: Any) -> Any:
    return {key: value for key, value in flavor.items() if key != "config"} if isinstance(flavor, dict) else flavor
