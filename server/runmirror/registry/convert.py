"""Rows of the registry → its wire."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import Row

from runmirror.registry import wire


def model_to_wire(row: Row[Any]) -> wire.ModelWire:
    return wire.ModelWire(
        name=row.name,
        creation_timestamp=row.creation_time_ms,
        last_updated_timestamp=row.last_updated_time_ms,
        description=row.description or None,
        latest_versions=[_version(version, aliases=False) for version in row.latest_versions or ()] or None,
        tags=_tags(row.tags),
        aliases=[wire.AliasOut(**alias) for alias in row.aliases or ()] or None,
    )


def latest_to_wire(row: Row[Any]) -> list[wire.VersionWire]:
    """The newest version of each stage of a registered model."""
    return [_version(version, aliases=True) for version in row.latest_versions or ()]


def version_to_wire(row: Row[Any], *, aliases: bool = True) -> wire.VersionWire:
    """MLflow names the aliases of a version in every answer but a search's and a registered model's own."""
    return _version(row._mapping, aliases=aliases)


def _version(row: Mapping[Any, Any], *, aliases: bool) -> wire.VersionWire:
    return wire.VersionWire(
        name=row["name"],
        version=str(row["version"]),
        creation_timestamp=row["creation_time_ms"],
        last_updated_timestamp=row["last_updated_time_ms"],
        current_stage=row["current_stage"],
        description=row["description"],
        source=row["source"],
        run_id=row["run_id"],
        run_link=row["run_link"],
        tags=_tags(row["tags"]),
        aliases=(row["aliases"] or None) if aliases else None,
    )


def _tags(tags: list[dict[str, str]] | None) -> list[wire.TagOut] | None:
    return [wire.TagOut(**tag) for tag in tags or ()] or None
