"""Requests and answers of transfers that pass us by."""

from datetime import timedelta

from pydantic import Field

from runmirror.artifacts.direct import MAX_LIFETIME, MAX_PARTS
from runmirror.errors import InvalidParameter
from runmirror.wire import Int64, Wire, missing


class PartWire(Wire):
    """A part of an upload. Azure has no use for the etag, and we derive the URL ourselves."""

    part_number: Int64 = 0


class FileOfUpload(Wire):
    """`path` is the file's path at the client, of which its name counts."""

    path: str = ""


class CreateMultipart(FileOfUpload):
    num_parts: Int64 = 0


class CompleteMultipart(FileOfUpload):
    upload_id: str = ""
    parts: list[PartWire] = Field(max_length=MAX_PARTS)


class AbortMultipart(FileOfUpload):
    upload_id: str = ""


class CredentialWire(Wire):
    url: str
    part_number: int


class MultipartCreated(Wire):
    upload_id: str
    credentials: list[CredentialWire]


class PresignedFile(Wire):
    """The answer of the proxied artifact service."""

    url: str
    headers: dict[str, str] = {}
    file_size: int


class _PresignRequest(Wire):
    run_id: str = ""
    path: str = ""
    expiration: Int64 | None = None

    def lifetime(self, default: timedelta) -> timedelta:
        """How long the URL shall be usable."""
        most = int(MAX_LIFETIME.total_seconds())
        if self.expiration is None:
            return default
        if not 1 <= self.expiration <= most:
            raise InvalidParameter(f"expiration must be between 1 and {most} seconds (got {self.expiration}).")
        return timedelta(seconds=self.expiration)


class PresignDownload(_PresignRequest):
    """A URL of a run's file."""


class PresignUpload(_PresignRequest):
    """A URL for a file of a run or of a logged model."""

    model_id: str = ""


class PresignedDownload(Wire):
    presigned_url: str
    file_size: int


class PresignedUpload(Wire):
    presigned_url: str
    headers: dict[str, str]


def required(value: str, name: str) -> str:
    """`value`, when it was given."""
    if not value:
        raise InvalidParameter(missing(name))
    return value
