"""Makes the container `artifacts` in Azurite: runmirror makes none, for in Azure that is whoever set up the account."""

import contextlib
from pathlib import Path

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

service = BlobServiceClient.from_connection_string(Path("/secrets/storage").read_text())
with service, contextlib.suppress(ResourceExistsError):
    service.create_container("artifacts")
