"""HTTP of a run's inputs and outputs; `runs/get` and `runs/search` show them."""

from fastapi import APIRouter

from runmirror.db import WriteConnection
from runmirror.routing import Permission, mlflow_route
from runmirror.runs import inputs_service
from runmirror.runs.inputs_wire import LogInputs, LogOutputs
from runmirror.wire import Empty

router = APIRouter(tags=["runs"])


@mlflow_route(router, "POST", "/runs/log-inputs", permission=Permission.EDIT)
async def log_inputs(request: LogInputs, connection: WriteConnection) -> Empty:
    """Datasets and logged models that the run read."""
    datasets = [given.to_input() for given in request.datasets]
    model_ids = [given.to_model_id() for given in request.models]
    await inputs_service.log_inputs(connection, request.the_run_id, datasets, model_ids)
    return Empty()


@mlflow_route(router, "POST", "/runs/outputs", permission=Permission.EDIT)
async def log_outputs(request: LogOutputs, connection: WriteConnection) -> Empty:
    """Logged models that the run made."""
    outputs = [(given.to_model_id(), given.step) for given in request.models]
    await inputs_service.log_outputs(connection, request.the_run_id, outputs)
    return Empty()
