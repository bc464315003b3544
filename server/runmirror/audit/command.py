"""What `runmirror audit` prints."""

import json
from collections.abc import Callable
from datetime import datetime

from runmirror.audit import queries
from runmirror.db import create_engine
from runmirror.settings import Settings

_PAGE = 1000


async def show(
    settings: Settings, database_url: str, *, since: datetime | None, action: str | None, as_json: bool,
    tell: Callable[[str], None],
) -> None:  # fmt: skip
    engine = create_engine(settings, database_url)
    try:
        after = 0
        while True:
            async with engine.connect() as connection:
                page = await queries.read(connection, since=since, action=action, after=after, most=_PAGE)
            for entry in page:
                at = entry.at.isoformat(timespec="milliseconds")
                if as_json:
                    tell(json.dumps({**entry._mapping, "at": at}))
                else:
                    tell(f"{at}  {entry.action:<24} {entry.subject}  by {entry.caller}")
            if len(page) < _PAGE:
                return
            after = page[-1].entry_id
    finally:
        await engine.dispose()
