"""Where artifact bytes live: a folder or Azure Blob, as the settings say."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from runmirror.artifacts.files import Entry, Opened, Stat, Store, Written
from runmirror.artifacts.local import LocalStore
from runmirror.settings import Settings

__all__ = ["Entry", "Opened", "Stat", "Store", "Written", "create_store"]

_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # two letters at least: C:\ is a folder


def create_store(settings: Settings) -> Store:
    """The store at `settings.artifact_root`. Raises `ValueError` for an address that is neither."""
    root = settings.artifact_root
    if root.startswith(("wasbs://", "wasb://")):
        from runmirror.artifacts.blob import BlobStore  # noqa: PLC0415 - a third of a second, 20 MB: only where needed

        secret = settings.azure_storage_connection_string
        return BlobStore.at(
            root,
            connection_string=secret.get_secret_value() if secret else None,
            ca_bundle=settings.ca_bundle,
            direct=settings.direct_transfers != "off",
        )
    if root.startswith("file:"):
        root = url2pathname(urlsplit(root).path)
    elif _SCHEME.match(root):
        raise ValueError(f"artifacts can be kept in a folder or at wasbs://…, not at {root!r}")
    store = LocalStore(Path(root))
    store.prepare()
    return store
