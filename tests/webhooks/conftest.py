"""The app with webhooks that may be told on loopback, and a receiver there."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from runmirror.settings import Settings
from tests.webhooks.receiver import Receiver, receiving


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        database_url=database_url,
        data_dir=tmp_path / "data",
        mirror=False,
        webhook_allow_private=True,
        webhook_allowed_schemes=("http", "https"),
        webhook_secret_key=Fernet.generate_key().decode(),
        webhook_timeout=timedelta(seconds=10),
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made
