"""HTTP for operators: what was set aside, and putting it back into the queue."""

from typing import Annotated

from fastapi import APIRouter, Query

from runmirror.db import ReadConnection, WriteConnection
from runmirror.errors import InvalidParameter
from runmirror.mirror import quarantine
from runmirror.mirror.quarantine import MOST
from runmirror.mirror.quarantine_wire import QuarantineAnswer, QuarantinedRun, ReplayAnswer, ReplayRequest
from runmirror.routing import Permission, route
from runmirror.runs.writes import parse_run_id
from runmirror.wire import RUN_ID

router = APIRouter(tags=["mirror"])


@route(router, "GET", "/api/runmirror/v1/mirror/quarantine", permission=Permission.READ)
async def list_quarantine(
    connection: ReadConnection, max_results: Annotated[int, Query(ge=1, le=MOST)] = 100, page_token: str = ""
) -> QuarantineAnswer:
    """Runs that are not mirrored any further: Azure's reason, its request id, since when, and what to do."""
    if page_token and not RUN_ID.match(page_token):
        raise InvalidParameter("Invalid page token.")
    before = parse_run_id(page_token) if page_token else None
    found = await quarantine.newest(connection, before=before, most=max_results + 1)
    page = found[:max_results]
    return QuarantineAnswer(
        runs=[QuarantinedRun.of(run) for run in page],
        next_page_token=page[-1].run_id.hex if len(found) > max_results else None,
    )


@route(router, "POST", "/api/runmirror/v1/mirror/replay", permission=Permission.MANAGE)
async def replay(request: ReplayRequest, connection: WriteConnection) -> ReplayAnswer:
    """Put quarantined runs back into the queue, the oldest first, at most a thousand at once."""
    choice = request.to_choice()
    found = await quarantine.chosen(connection, choice, after=quarantine.NOTHING_BEFORE, most=MOST + 1)
    run_ids = [run.run_id for run in found[:MOST]]
    if not request.dry_run:
        run_ids = await quarantine.replay(connection, choice)
    return ReplayAnswer(run_ids=[run_id.hex for run_id in run_ids], more=len(found) > MOST)
