"""HTTP of assessments: parse, call one function, answer."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy.engine import Row

from runmirror.db import ReadConnection, WriteConnection
from runmirror.routing import Permission, mlflow_route
from runmirror.traces import assessments_service, assessments_wire
from runmirror.wire import Empty

router = APIRouter(tags=["traces"])

_OF_TRACE = "/traces/{trace_id}/assessments"
_ONE = _OF_TRACE + "/{assessment_id}"


@mlflow_route(router, "POST", _OF_TRACE, permission=Permission.EDIT, version="3.0")
async def create_assessment(
    trace_id: str, request: assessments_wire.CreateAssessment, connection: WriteConnection
) -> JSONResponse:
    """Add feedback, an expectation or an issue to a trace."""
    assessment = request.assessment.to_assessment()
    await assessments_service.create(connection, trace_id, assessment)
    return _answer(await assessments_service.get(connection, trace_id, assessment.assessment_id))


@mlflow_route(router, "GET", _ONE, permission=Permission.READ, version="3.0")
async def get_assessment(trace_id: str, assessment_id: str, connection: ReadConnection) -> JSONResponse:
    return _answer(await assessments_service.get(connection, trace_id, assessment_id))


@mlflow_route(router, "PATCH", _ONE, permission=Permission.EDIT, version="3.0")
async def update_assessment(
    trace_id: str, assessment_id: str, request: assessments_wire.UpdateAssessment, connection: WriteConnection
) -> JSONResponse:
    """Change the fields that the request's mask names."""
    await assessments_service.update(connection, trace_id, assessment_id, request.to_change())
    return _answer(await assessments_service.get(connection, trace_id, assessment_id))


@mlflow_route(router, "DELETE", _ONE, permission=Permission.EDIT, version="3.0")
async def delete_assessment(trace_id: str, assessment_id: str, connection: WriteConnection) -> Empty:
    """Delete an assessment; one that is not there is deleted already."""
    await assessments_service.delete(connection, trace_id, assessment_id)
    return Empty()


def _answer(row: Row[Any]) -> JSONResponse:
    return JSONResponse({"assessment": assessments_wire.to_wire(row._asdict())})
