"""Ids of runs: ours on the wire are 32 hex digits; those that Azure ML gives are any word, and name a run here too.

A run that was born in the workspace keeps its name there (`runs.azure_run_id`) and is stored under a UUID that follows
from that name alone. So whoever reads the name in a request knows the row, without asking the database; every server
comes to the same one; and no id of ours, which are of other versions of UUID, is ever among them.
"""

import re
from uuid import UUID, uuid5

from asyncpg.pgproto import pgproto

from runmirror.wire import RUN_ID

# What Azure ML takes as the id of a run.
_AZURE_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,255}")
_NAMESPACE = UUID("5ad7f4a4-3a5c-4c1e-9d3f-0f6f1f0c9b52")


def is_foreign(run_id: str) -> bool:
    """Whether this may be the id of a run in an Azure ML workspace, and is none of ours."""
    return not RUN_ID.match(run_id) and _AZURE_ID.fullmatch(run_id) is not None


def stored_id(run_id: str) -> UUID | None:
    """The id as stored; None for what cannot be the id of any run."""
    if RUN_ID.match(run_id):
        quick: UUID = pgproto.UUID(run_id)  # the driver's own, made in a tenth of the time
        return quick
    return uuid5(_NAMESPACE, run_id) if _AZURE_ID.fullmatch(run_id) else None


def shown_id(run_id: UUID, azure_run_id: str | None) -> str:
    """The id as clients know it."""
    return azure_run_id or run_id.hex
