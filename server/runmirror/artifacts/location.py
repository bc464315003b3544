"""Where a client may ask an experiment's artifacts to live: inside our own store, nowhere else."""

from runmirror.errors import InvalidParameter

SCHEME = "mlflow-artifacts:/"


def check_location(location: str) -> str:
    """The location without a trailing slash. Raises `InvalidParameter` unless it is a safe path in our store.

    The server never opens an address a client gives, and clients of this server need no credentials of a store, so a
    location elsewhere could only fail later.
    """
    path = location.removeprefix(SCHEME).rstrip("/")
    unsafe = any(c in path for c in "\\?#%;:") or not path.isprintable() or not path
    if not location.startswith(SCHEME) or unsafe or {"", ".", ".."} & set(path.split("/")) or len(location) > 1024:
        raise InvalidParameter(
            f"Invalid artifact_location {location[:200]!r}: leave it out, or give a path in this server's own store "
            "(mlflow-artifacts:/some/path)."
        )
    return SCHEME + path
