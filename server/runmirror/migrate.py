"""Bring a database to the schema of this version: Alembic under an advisory lock, so replicas may start at once."""

from functools import cache
from importlib.resources import files
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import make_url

_SOURCE_TREE = Path(__file__).resolve().parents[2] / "migrations"


def _location() -> str:
    """The wheel carries the migrations inside the package; a source tree has them at its top."""
    packaged = Path(str(files("runmirror"))) / "migrations"
    return str(packaged if packaged.is_dir() else _SOURCE_TREE)


def _config(database_url: str | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", _location())
    if database_url is not None:
        config.attributes["database_url"] = make_url(database_url).set(drivername="postgresql+asyncpg")
    return config


@cache
def head_revision() -> str:
    """The revision this version of the code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("no migrations found in this installation")
    return head


def migrate(database_url: str) -> None:
    """Upgrade to `head_revision()`; waits for another process that is doing the same.

    Raises `alembic.util.CommandError` when the database is at a revision this version does not know.
    """
    command.upgrade(_config(database_url), "head")
