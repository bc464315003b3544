"""The database's address, as users write it for asyncpg and libpq, and as SQLAlchemy wants to have it."""

from sqlalchemy import URL, make_url


def engine_url(database_url: str) -> URL:
    """For an engine: what asyncpg calls `sslmode` when it reads an address is its argument `ssl` when it is called."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    mode = url.query.get("sslmode")
    return url if mode is None else url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
