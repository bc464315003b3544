"""Which source an address means."""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from runmirror.importing.file_source import FileSource
from runmirror.importing.old_files import Files, FolderFiles, local_path
from runmirror.importing.rest_api import RestApi
from runmirror.importing.rest_source import RestSource, ServerFiles, identity_of
from runmirror.importing.source import Source, SourceError
from runmirror.importing.sql_source import SqlSource
from runmirror.settings import Settings

_SQL = ("sqlite:", "postgresql", "postgres:", "mysql", "mssql")
_HTTP = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class SignIn:
    """At an mlflow server, as its clients sign in."""

    token: str | None = None
    username: str | None = None
    password: str | None = None


def open_source(settings: Settings, address: str, *, artifacts_from: str | None, sign_in: SignIn) -> Source:
    """Raises `SourceError`."""
    if address.startswith(_HTTP):
        return _server(settings, address, sign_in)
    if address.startswith("azureml:"):
        from runmirror.importing.azureml_source import AzureMLSource  # noqa: PLC0415 - Azure's clients: a quarter of a second

        return AzureMLSource(settings, address, _trust(settings))
    files = _files(settings, artifacts_from, sign_in)
    if address.startswith(_SQL):
        return SqlSource(address, files)
    folder = local_path(address)
    if folder is None:
        raise SourceError(f"{address!r} is no tracking URI that can be imported from")
    return FileSource(folder, files)


def _server(settings: Settings, address: str, sign_in: SignIn) -> RestSource:
    url = urlsplit(address)
    place, _, host = url.netloc.rpartition("@")
    username, _, password = place.partition(":")
    signed = _signature(
        SignIn(
            sign_in.token,
            unquote(username) or sign_in.username,
            unquote(password) if username else sign_in.password,
        )
    )

    async def sign() -> Mapping[str, str]:
        return signed

    base = urlunsplit((url.scheme, host, url.path, "", ""))
    return RestSource(RestApi(base, sign, trust=_trust(settings)), identity_of(address))


def _signature(sign_in: SignIn) -> Mapping[str, str]:
    """A name and password count more than a token, as in MLflow."""
    if sign_in.username and sign_in.password is not None:
        pair = base64.b64encode(f"{sign_in.username}:{sign_in.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {"Authorization": f"Bearer {sign_in.token}"} if sign_in.token else {}


def _files(settings: Settings, artifacts_from: str | None, sign_in: SignIn) -> Files:
    if artifacts_from is None:
        return FolderFiles(None)
    if artifacts_from.startswith(_HTTP):
        return FolderFiles(None, ServerFiles(_server(settings, artifacts_from, sign_in)))
    folder = local_path(artifacts_from)
    if folder is None:
        raise SourceError(f"--artifacts-from is a folder or the address of an mlflow server, not {artifacts_from!r}")
    if not folder.is_dir():
        raise SourceError(f"there is no folder {folder}")
    return FolderFiles(Path(folder))


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    return True if settings.ca_bundle is None else ssl.create_default_context(cafile=settings.ca_bundle)
