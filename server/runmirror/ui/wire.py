"""Answers that only MLflow's pages and clients read before anything else."""

from runmirror.wire import Wire


class ServerInfo(Wire):
    """What this server can do beyond the core, in MLflow's words."""

    store_type: str = "SqlStore"
    workspaces_enabled: bool = False
    trace_archival_enabled: bool = False
    multipart_uploads_enabled: bool = False
    multipart_downloads_enabled: bool = False
    presigned_upload_run_id_supported: bool = True
    presigned_upload_model_id_supported: bool = True
    features_enabled: dict[str, bool] = {"gateway": False}
