"""Bring a database to the schema of this version: Alembic under an advisory lock, so replicas may start at once."""

import asyncio
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import make_url

from runmirror.database_url import engine_url

if TYPE_CHECKING:  # alembic is imported by whoever migrates: a server that starts again need not wait for it
    from alembic.config import Config

_STATED = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)
_SOURCE_TREE = Path(__file__).resolve().parents[2] / "migrations"


class SchemaUnknown(Exception):
    """The database was made by a newer version."""


def _location() -> str:
    """The wheel carries the migrations inside the package; a source tree has them at its top."""
    packaged = Path(str(files("runmirror"))) / "migrations"
    return str(packaged if packaged.is_dir() else _SOURCE_TREE)


def _config(database_url: str) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - see above

    config = Config()
    config.set_main_option("script_location", _location())
    config.attributes["database_url"] = engine_url(database_url)
    return config


@cache
def head_revision() -> str:
    """The revision this version of the code needs."""
    revisions: set[str] = set()
    replaced: set[str | None] = set()
    for script in (Path(_location()) / "versions").glob("*.py"):
        stated = dict(_STATED.findall(script.read_text(encoding="utf-8")))
        revisions.add(stated["revision"])
        replaced.add(stated.get("down_revision"))
    heads = revisions - replaced
    if len(heads) != 1:
        raise RuntimeError(f"the migrations of this installation have no one end: {sorted(heads)}")
    return heads.pop()


def migrate(database_url: str) -> None:
    """Upgrade to `head_revision()`; waits for another process that is doing the same.

    Raises `SchemaUnknown` when the database is at a revision this version does not know.
    """
    if asyncio.run(_revision(database_url)) == head_revision():
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        command.upgrade(_config(database_url), "head")
    except CommandError as error:
        raise SchemaUnknown(str(error)) from error


async def _revision(database_url: str) -> str | None:
    """Where the database is; None when it has never been migrated."""
    dsn = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return None if found is None else str(found)
