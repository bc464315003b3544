"""What the database says about the files of a run."""

import hashlib
from dataclasses import dataclass

from fastapi import FastAPI
from sqlalchemy import text

from tests.artifacts.conftest import Run


@dataclass(frozen=True, slots=True)
class Row:
    path: str
    size_bytes: int
    md5: str | None
    deleted: bool
    seq: int
    model_id: str = ""


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


async def rows(app: FastAPI, run: Run) -> list[Row]:
    query = "SELECT path, size_bytes, md5, deleted, seq, model_id FROM artifacts WHERE run_id = :run ORDER BY path"
    async with app.state.engine.connect() as connection:
        return [Row(*row) for row in await connection.execute(text(query), {"run": run.run_id})]


async def seq(app: FastAPI, run: Run) -> int:
    async with app.state.engine.connect() as connection:
        found = await connection.scalar(text("SELECT seq FROM runs WHERE run_id = :run"), {"run": run.run_id})
        assert isinstance(found, int)
        return found
