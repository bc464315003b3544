"""Secrets of webhooks are stored encrypted, as MLflow stores them (Fernet, one key for all)."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from runmirror.errors import InvalidParameter

MAX_LENGTH = 500


class UnreadableSecret(Exception):
    """Encrypted with another key than ours: nothing may be sent without its signature."""


class Secrets:
    """Encrypts and decrypts; without a key it stores none."""

    def __init__(self, key: SecretStr | None) -> None:
        self._fernet = None if key is None else Fernet(key.get_secret_value())

    def encrypt(self, secret: str) -> str | None:
        """What is stored: None for no secret."""
        if not secret:
            return None
        if self._fernet is None:
            raise InvalidParameter(
                "This server cannot keep the secret of a webhook: its operator has to set RUNMIRROR_WEBHOOK_SECRET_KEY "
                "(or MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY)."
            )
        if len(secret) > MAX_LENGTH:
            raise InvalidParameter(f"'secret' exceeds the maximum length of {MAX_LENGTH} characters")
        return self._fernet.encrypt(secret.encode()).decode()

    def decrypt(self, stored: str) -> str:
        if self._fernet is None:
            raise UnreadableSecret("its secret cannot be read: this process has no RUNMIRROR_WEBHOOK_SECRET_KEY")
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise UnreadableSecret("its secret was stored with another RUNMIRROR_WEBHOOK_SECRET_KEY") from None


def kept_key(data_dir: Path) -> str:
    """The key in the data directory, made when there is none; only its owner can read it.

    It appears whole: neither a kill in the middle nor two servers that start at once leave half a key behind.
    """
    file = data_dir / "webhook-secret-key"
    if not file.exists():
        with NamedTemporaryFile(dir=data_dir, prefix=".webhook-secret-key-") as new:  # 0600
            new.write(Fernet.generate_key())
            new.flush()
            os.fsync(new.fileno())
            with suppress(FileExistsError):
                os.link(new.name, file)
    return file.read_text(encoding="ascii").strip()
