"""The first service of docker-compose.yml: makes this installation's secrets, once; they stay in their volume."""

import base64
import os
import secrets
from pathlib import Path

FOLDER = Path("/secrets")
ACCOUNT = "runmirror"


def keep(name: str, value: str) -> str:
    """What the file says, which is written now if it is not there."""
    file = FOLDER / name
    if not file.exists():
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as written:
            written.write(value)
        part.rename(file)
    return file.read_text()


password = keep("postgres-password", secrets.token_urlsafe(24))
keep("database-url", f"postgresql://runmirror:{password}@postgres:5432/runmirror")
key = keep("azurite-key", base64.b64encode(secrets.token_bytes(64)).decode())
keep(
    "storage",
    f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
    f"BlobEndpoint=http://azurite:10000/{ACCOUNT};",
)
keep("webhook-key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
