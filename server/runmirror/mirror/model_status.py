"""How far registered models are mirrored, and what of them is not: for the status routes and `runmirror status`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import model_is_readable, readers_values


@dataclass(frozen=True, slots=True)
class ModelCounts:
    """`partial`: the workspace has the model, but not all of its versions, tags, aliases or descriptions."""

    behind: int
    quarantined: int
    partial: int


@dataclass(frozen=True, slots=True)
class VersionMirror:
    """Which number a version has there, or why it is not there; None for both: it waits."""

    version: int
    remote_version: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ModelMirror:
    """One registered model, by the name it has here; None once it is deleted here. `workspace` is a link's name."""

    name: str | None
    state: str
    workspace: str | None
    remote_name: str | None
    behind_since: datetime | None
    mirrored_at: datetime | None
    waits_for_run: UUID | None
    attempt: int
    last_error: str | None
    last_error_at: datetime | None
    problems: tuple[str, ...]
    versions: tuple[VersionMirror, ...]

    @property
    def is_replayable(self) -> bool:
        """Whether nobody is to try again what is wrong with it, as `model_queue.replay` sees it."""
        lacks = self.problems or any(version.problem is not None for version in self.versions)
        return self.state == "quarantined" or (self.state == "current" and bool(lacks))


_PROBLEM = """
    (problems <> '[]' OR EXISTS (
        SELECT FROM mirrored_versions AS version
        WHERE version.registered_model_id = mirror.registered_model_id AND version.problem IS NOT NULL))
"""

_COUNTS = text(f"""
    SELECT count(*) FILTER (WHERE state IN ('due', 'leased')), count(*) FILTER (WHERE state = 'quarantined'),
        count(*) FILTER (WHERE state <> 'quarantined' AND {_PROBLEM})
    FROM mirrored_models AS mirror
""")  # noqa: S608 - constants of this module

# Those in trouble first. A model without a row is about to get one, when a worker starts.
_MODELS = text(f"""
    SELECT model.name, COALESCE(mirror.state, 'due') AS state,
        (SELECT link.name FROM mirror_links AS link WHERE link.link_id = mirror.link_id) AS workspace,
        remote_name, behind_since, mirrored_at, waits_run_id,
        COALESCE(attempt, 0) AS attempt, last_error, last_error_at, COALESCE(problems, '[]') AS problems,
        (SELECT COALESCE(jsonb_agg(jsonb_build_array(version, remote_version, problem) ORDER BY version), '[]')
         FROM mirrored_versions AS version WHERE version.registered_model_id = mirror.registered_model_id) AS versions
    FROM mirrored_models AS mirror FULL JOIN registered_models AS model USING (registered_model_id)
    WHERE (CAST(:name AS text) IS NULL OR model.name = :name)
        AND {model_is_readable("registered_model_id")}
        AND (NOT :in_trouble OR state = 'quarantined' OR last_error IS NOT NULL OR {_PROBLEM})
    ORDER BY COALESCE(mirror.state, 'due') = 'quarantined' DESC, last_error IS NOT NULL DESC, model.name LIMIT :most
""").columns(problems=JSONB, versions=JSONB)  # noqa: S608


async def model_counts(connection: AsyncConnection) -> ModelCounts:
    return ModelCounts(*(await connection.execute(_COUNTS)).one())


async def model_mirrors(
    connection: AsyncConnection, *, name: str | None = None, in_trouble: bool = False, most: int
) -> Sequence[ModelMirror]:
    """The first `most` registered models, or that of a name; `in_trouble`: only those with an error or problem."""
    rows = await connection.execute(_MODELS, {"name": name, "in_trouble": in_trouble, "most": most, **readers_values()})
    return [
        ModelMirror(
            row.name, row.state, row.workspace, row.remote_name, row.behind_since, row.mirrored_at,
            row.waits_run_id, row.attempt, row.last_error, row.last_error_at, tuple(row.problems),
            tuple(VersionMirror(*of) for of in row.versions),
        )
        for row in rows
    ]  # fmt: skip
