"""HTTP of transfers that pass us by: multipart uploads, and signed URLs."""

from datetime import timedelta
from pathlib import PurePosixPath, PureWindowsPath

from fastapi import APIRouter, Request

from runmirror.artifacts import direct, direct_wire
from runmirror.artifacts.direct_wire import required
from runmirror.artifacts.routes import Service, file_path
from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter
from runmirror.routing import Permission, mlflow_route, route
from runmirror.settings import Settings
from runmirror.wire import Empty

router = APIRouter(tags=["artifacts"])

_MULTIPART = "/api/2.0/mlflow-artifacts/mpu"
_UPLOAD_LIFETIME = timedelta(minutes=15)  # MLflow's, when the client does not say


@route(router, "POST", _MULTIPART + "/create/{path:path}", permission=Permission.EDIT, twins=True)
async def create_multipart_upload(
    service: Service, path: str, request: direct_wire.CreateMultipart
) -> direct_wire.MultipartCreated:
    """URLs for the parts of a file in the folder `path`; nothing is stored before the upload is completed."""
    upload_id, urls = await direct.begin_parts(service, _file_in(path, request), request.num_parts)
    credentials = [direct_wire.CredentialWire(url=url, part_number=number) for number, url in enumerate(urls, 1)]
    return direct_wire.MultipartCreated(upload_id=upload_id, credentials=credentials)


@route(router, "POST", _MULTIPART + "/complete/{path:path}", permission=Permission.EDIT, twins=True)
async def complete_multipart_upload(service: Service, path: str, request: direct_wire.CompleteMultipart) -> Empty:
    """Make the file of its parts; 200 says that it is stored and recorded."""
    numbers = [part.part_number for part in request.parts]
    await direct.end_parts(service, _file_in(path, request), request.upload_id, numbers)
    return Empty()


@route(router, "POST", _MULTIPART + "/abort/{path:path}", permission=Permission.EDIT, twins=True)
async def abort_multipart_upload(service: Service, path: str, request: direct_wire.AbortMultipart) -> Empty:
    """Nothing to do: parts that no upload has made a file of are invisible, and Azure throws them away."""
    _file_in(path, request)
    direct.direct_or_unsupported(service, direct.UPLOADS)
    return Empty()


@route(
    router, "GET", "/api/2.0/mlflow-artifacts/presigned/{path:path}", permission=Permission.READ, twins=True
)  # fmt: skip
async def presigned_file(request: Request, service: Service, path: str) -> direct_wire.PresignedFile:
    """A URL from which a client downloads a file, or parts of it side by side."""
    settings: Settings = request.app.state.settings
    file = await direct.download(service, file_path(path), settings.presigned_download_ttl)
    return direct_wire.PresignedFile(url=file.url, file_size=file.size_bytes)


@mlflow_route(router, "POST", "/artifacts/presigned-download-url", permission=Permission.READ)
async def presigned_download_url(
    http: Request, service: Service, request: direct_wire.PresignDownload
) -> direct_wire.PresignedDownload:
    """A URL to download a file of a run from."""
    settings: Settings = http.app.state.settings
    run_id, path = required(request.run_id, "run_id"), file_path(required(request.path, "path"))
    lifetime = request.lifetime(settings.presigned_download_ttl)
    file = await direct.download_of_run(service, run_id, path, lifetime)
    return direct_wire.PresignedDownload(presigned_url=file.url, file_size=file.size_bytes)


@mlflow_route(router, "POST", "/artifacts/presigned-upload-url", permission=Permission.EDIT)
async def presigned_upload_url(service: Service, request: direct_wire.PresignUpload) -> direct_wire.PresignedUpload:
    """A URL to upload a file of a run or of a logged model to."""
    path = required(request.path, "path")
    if bool(request.run_id) == bool(request.model_id):
        raise InvalidParameter("Exactly one of run_id and model_id must be provided.")
    url, headers = await direct.upload(
        service, file_path(path), request.lifetime(_UPLOAD_LIFETIME), run_id=request.run_id, model_id=request.model_id
    )
    return direct_wire.PresignedUpload(presigned_url=url, headers=dict(headers))


def _file_in(folder: str, request: direct_wire.FileOfUpload) -> str:
    """The store path of the client's file; clients on Windows send their own kind of path."""
    safe_path(folder.removesuffix("/"))
    path = required(request.path, "path")
    windows = PureWindowsPath(path)
    name = windows.name if windows.drive else PurePosixPath(path).name
    return file_path(f"{folder.removesuffix('/')}/{name}")
