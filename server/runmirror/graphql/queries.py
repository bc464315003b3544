"""SQL that GraphQL needs beside that of the slices: what belongs to many runs at once."""

from collections.abc import Sequence

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from runmirror.auth.clauses import model_is_readable, readers_values

# As a search of model versions answers that does not ask for prompts: none of them, and the last touched first.
_VERSIONS_OF_RUNS = text(f"""
    SELECT v.registered_model_id, v.version
    FROM model_versions v JOIN registered_models m USING (registered_model_id)
    WHERE v.run_id = ANY(:run_ids) AND v.current_stage <> 'Deleted_Internal'
      AND NOT EXISTS (
        SELECT FROM model_version_tags t
        WHERE t.registered_model_id = v.registered_model_id AND t.key = 'mlflow.prompt.is_prompt' AND t.value = 'true')
      AND {model_is_readable("v.registered_model_id")}
    ORDER BY v.last_updated_time_ms DESC, m.name COLLATE "C", v.version DESC
""").bindparams(bindparam("run_ids", type_=ARRAY(Text)))


async def versions_of_runs(connection: AsyncConnection, run_ids: Sequence[str]) -> list[tuple[int, int]]:
    """(registered_model_id, version) of the model versions made from these runs."""
    rows = await connection.execute(_VERSIONS_OF_RUNS, {"run_ids": list(run_ids), **readers_values()})
    return [(row.registered_model_id, row.version) for row in rows]
