"""Settings: built once from the environment (and the command line), checked once, passed down."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from cryptography.fernet import Fernet
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

WORKSPACE_ID = re.compile(
    r"^/subscriptions/(?P<subscription>[\w\-]+)/resourceGroups/(?P<resource_group>[\w\-.()]+)"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/(?P<workspace>[A-Za-z0-9][\w\-]{1,32})$",
    re.IGNORECASE,
)


# Cookies are sent back over TLS alone, but on this machine.
_PUBLIC_URL = (
    r"(https://([\w.\-]+|\[[0-9a-fA-F:]+\])|http://(localhost|127\.0\.0\.1|\[::1\]))(:\d{1,5})?(/[\w\-.~]+)*/?"
)


def _seconds(value: object) -> object:
    """Plain numbers are seconds, also as text from the environment."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value.strip()) else value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]


def _parts(value: object) -> object:
    """Text from the environment is a list with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _env(name: str, *fallbacks: str) -> AliasChoices:
    """The field's own name (for code and command line), RUNMIRROR_*, then MLflow's or Azure's name."""
    return AliasChoices(name, f"RUNMIRROR_{name.upper()}", *fallbacks)


class Settings(BaseSettings):
    """What one process of runmirror is told; docs/settings.md has the same table."""

    model_config = SettingsConfigDict(env_prefix="RUNMIRROR_", frozen=True, extra="ignore")

    database_url: str | None = Field(
        None,
        validation_alias=_env("database_url", "MLFLOW_BACKEND_STORE_URI"),
        description="`postgresql://…`; without it a private Postgres runs in the data directory",
    )
    data_dir: Path = Field(Path("runmirror-data"), description="embedded Postgres and local artifacts")
    artifacts_destination: str | None = Field(
        None,
        validation_alias=_env("artifacts_destination", "MLFLOW_ARTIFACTS_DESTINATION"),
        description="a folder, or `wasbs://container@account.blob.core.windows.net/path`",
    )
    azure_storage_connection_string: SecretStr | None = Field(
        None,
        validation_alias=_env("azure_storage_connection_string", "AZURE_STORAGE_CONNECTION_STRING"),
        description="credentials of the blob store; without it `DefaultAzureCredential`",
    )
    direct_transfers: Literal["off", "allowed", "offered"] = Field(
        "allowed",
        description="whether clients may move files to and from Azure Blob themselves, by URLs signed for one file: "
        "`allowed` to those set up to ask, `offered` to all (they must reach the account), `off`",
    )
    presigned_download_ttl: Duration = Field(
        timedelta(minutes=5),
        gt=timedelta(0),
        le=timedelta(days=7),
        validation_alias=_env("presigned_download_ttl", "MLFLOW_PRESIGNED_DOWNLOAD_URL_TTL_SECONDS"),
        description="how long a signed URL of a file can be used",
    )
    host: str = Field("127.0.0.1", validation_alias=_env("host", "MLFLOW_HOST"), description="address to listen on")
    port: int = Field(
        5000, ge=0, le=65535, validation_alias=_env("port", "MLFLOW_PORT"), description="port to listen on"
    )
    ssl_certfile: Path | None = Field(None, description="PEM file of the server's certificate: it then speaks TLS")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the key, if it is not in that file")
    ssl_ca_certs: Path | None = Field(
        None, description="PEM file of the authorities of clients: who has no certificate of theirs is not served"
    )
    workers: int = Field(1, ge=1, validation_alias=_env("workers", "MLFLOW_WORKERS"), description="API processes")
    auth: Literal["none", "token", "entra"] = Field(
        "none",
        description="who may call: `none` means everybody who reaches the port, `token` users with a token or "
        "password, `entra` those and whoever has an access token of the issuer below",
    )
    oidc_issuer: str | None = Field(
        None, description="whose access tokens are taken, e.g. `https://login.microsoftonline.com/<tenant id>/v2.0`"
    )
    oidc_audience: str | None = Field(
        None, description="for whom they must have been given out: the application's client id, or `api://…`"
    )
    oidc_admin_role: str = Field("runmirror.admin", min_length=1, description="the app role that makes an admin")
    oidc_client_id: str | None = Field(
        None,
        description="the application by which browsers sign in at that issuer; none: with a token or password only",
    )
    oidc_client_secret: SecretStr | None = Field(
        None, description="its secret; without one it is a public client, which PKCE alone protects"
    )
    public_url: str | None = Field(
        None, description="the address of the server as browsers know it, e.g. `https://tracking.example/mlflow`"
    )
    session_ttl: Duration = Field(
        timedelta(hours=12), ge=timedelta(minutes=1), le=timedelta(days=90),
        description="how long a browser stays signed in",
    )  # fmt: skip
    default_permission: Literal["none", "reader", "editor", "manager"] = Field(
        "none", description="what users may do to an experiment or registered model of which no grant tells"
    )
    insecure_no_auth: bool = Field(False, description="allow `none` on an address other than loopback")
    db_pool_size: int = Field(
        10, ge=1,
        description="database connections of one process for requests, beside 4 for hot writes and 1 for probes",
    )  # fmt: skip
    db_queue_size: int = Field(
        250, ge=1, description="reads that may wait for a connection, and writes; one more is answered 429"
    )
    db_pool_timeout: Duration = Field(
        timedelta(seconds=10), description="how long a request waits for a connection before it is answered 429"
    )
    db_statement_timeout: Duration = Field(
        timedelta(seconds=30), description="how long the database may work on one statement of a request"
    )
    metric_chunks: bool = Field(
        True, description="store points that come together in one row; `false` while older processes still run beside"
    )
    kept_runs_bytes: int = Field(
        32 * 1024**2, ge=0, description="memory of one process for runs that were read before; 0 keeps none"
    )
    max_body_bytes: int = Field(32 * 1024**2, ge=1024, description="largest JSON body")

    static_prefix: str = Field(
        "", validation_alias=_env("static_prefix", "MLFLOW_STATIC_PREFIX"),
        description="path below which everything is served, e.g. `/mlflow`; probes also answer without it",
    )  # fmt: skip
    ui_dir: Path | None = Field(
        None, description="folder of MLflow's web pages; without it those of the package `mlflow`"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)] = Field(
        (), validation_alias=_env("allowed_hosts", "MLFLOW_SERVER_ALLOWED_HOSTS"),
        description="names and addresses the server is called by, with commas: `tracking.example`, `*.example`, "
        "`10.0.0.0/8`, `*`; an entry without a port admits every port",
    )  # fmt: skip
    cors_allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)] = Field(
        (), validation_alias=_env("cors_allowed_origins", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"),
        description="other origins whose pages may call the server, with commas: `https://app.example`, "
        "`https://*.example`, or `*`, which is without their visitors' credentials",
    )  # fmt: skip
    x_frame_options: Literal["SAMEORIGIN", "DENY", "NONE"] = Field(
        "SAMEORIGIN", validation_alias=_env("x_frame_options", "MLFLOW_SERVER_X_FRAME_OPTIONS"),
        description="who may show the pages in a frame; `NONE`: every site",
    )  # fmt: skip
    stale_run_after: Duration = Field(
        timedelta(0), ge=timedelta(0), le=timedelta(days=365),
        description="a run that says it is running is ended by the worker after so long without a write; 0: never",
    )  # fmt: skip
    stale_run_status: Literal["KILLED", "FAILED"] = Field("KILLED", description="with which status")

    rate_limit: float = Field(
        0, ge=0, allow_inf_nan=False,
        description="requests in a second that one address may make of one API process, five seconds' worth at once, "
        "before it is answered 429; 0: as many as it likes",
    )  # fmt: skip
    rate_limit_per_user: float = Field(
        0, ge=0, allow_inf_nan=False,
        description="the same for each user who is signed in, wherever their requests come from",
    )  # fmt: skip
    client_timeout: Duration = Field(
        timedelta(seconds=30), gt=timedelta(0),
        description="how long a client may take for the head of a request, pause within a body or leave its answer "
        "untaken before its connection is closed",
    )  # fmt: skip
    log_format: Literal["text", "json"] = Field("text", description="log lines as text, or as a JSON object each")
    access_log: bool = Field(False, description="log a line for each request that was answered")
    metrics: bool = Field(True, description="serve `/metrics` for Prometheus")
    expose_prometheus: Path | None = Field(
        None, description="folder below which several API processes share their counts for `/metrics`"
    )

    otel_endpoint: str | None = Field(
        None, validation_alias=_env("otel_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="where spans of requests, statements and the mirror are sent (OTLP over HTTP)",
    )  # fmt: skip
    otel_traces_endpoint: str | None = Field(
        None, validation_alias=_env("otel_traces_endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="the same as the whole address, `/v1/traces` and all",
    )  # fmt: skip
    otel_sdk_disabled: bool = Field(
        False, validation_alias=_env("otel_sdk_disabled", "OTEL_SDK_DISABLED"), description="send none all the same"
    )

    azureml_workspace: str | None = Field(
        None, description="ARM id of the workspace, or the path of its `config.json`; without it: see `runmirror link`"
    )
    azureml_arm_endpoint: str = Field("https://management.azure.com", description="Azure Resource Manager")
    azureml_tracking_uri: str | None = Field(
        None, description="`azureml://…` of the workspace; skips Resource Manager and discovery"
    )

    azureml_adopt: bool = Field(
        True, description="a run of the linked workspace that a client names by Azure ML's id becomes a run here too"
    )
    azureml_adopt_timeout: Duration = Field(
        timedelta(seconds=5), gt=timedelta(0), le=timedelta(seconds=60),
        description="how long a client that names such a run waits for the workspace before it is answered 429",
    )  # fmt: skip

    azureml_python: Path | None = Field(
        None,
        description="a Python that has `azureml-core`, by which the worker deploys to ACI and AKS; without it the "
        "worker's own, if that has it",
    )
    deploy_timeout: Duration = Field(
        timedelta(hours=1), gt=timedelta(0), le=timedelta(days=7),
        description="after how long a deployment, or its deletion, that is not done has failed",
    )  # fmt: skip

    ca_bundle: str | None = Field(
        None,
        validation_alias=_env("ca_bundle", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
        description="PEM file of the authorities that outgoing TLS trusts; without it those of the system",
    )

    mirror: bool = Field(True, description="`serve` runs a worker too")
    worker_alive_file: Path | None = Field(
        None, description="file that a worker touches every 10 s, by which a probe sees that it does not hang"
    )
    mirror_source: str = Field(
        "runmirror", description="tag `runmirror.source` on runs in the workspace, e.g. the address of this server"
    )
    mirror_concurrency: int = Field(4, ge=1, le=64, description="runs one worker mirrors at once")
    mirror_artifact_concurrency: int = Field(4, ge=1, le=64, description="files of one run copied at once")
    mirror_metrics_per_request: int = Field(200, ge=1, le=1000, description="points in one log-batch to Azure")
    mirror_params_per_request: int = Field(100, ge=1, le=100, description="params in one log-batch to Azure")
    mirror_tags_per_request: int = Field(100, ge=1, le=100, description="tags in one log-batch to Azure")
    mirror_artifacts_per_request: int = Field(50, ge=1, le=100, description="files registered in one request")
    mirror_limit_params: int = Field(200, ge=1, description="params of one run that Azure takes")
    mirror_limit_param_key: int = Field(255, ge=1, description="longest name of a param, in characters")
    mirror_limit_param_value: int = Field(500, ge=1, description="longest value of a param")
    mirror_limit_tags: int = Field(50, ge=10, description="tags of one run, the mirror's own among them")
    mirror_limit_tag_key: int = Field(100, ge=30, description="longest name of a tag")
    mirror_limit_tag_value: int = Field(1000, ge=100, description="longest value of a tag")
    mirror_limit_metrics: int = Field(50, ge=1, description="metric names of one run")
    mirror_limit_metric_key: int = Field(255, ge=1, description="longest name of a metric")
    mirror_limit_points: int = Field(1_000_000, ge=1, description="points of one metric")
    mirror_limit_inputs: int = Field(200, ge=1, description="dataset inputs of one run")
    mirror_limit_run_name: int = Field(256, ge=1, description="longest name of a run")
    mirror_limit_experiment_name: int = Field(255, ge=30, description="longest name of an experiment")
    mirror_overflow_every: Duration = Field(
        timedelta(minutes=1), description="how often the overflow file of a run that has not ended is written anew"
    )
    mirror_on_delete: Literal["delete", "archive", "keep"] = Field(
        "delete",
        description="what becomes of the copy of a deleted run: deleted too (and restored with it), archived (hidden "
        "in the workspace until it is restored), or kept and tagged",
    )
    mirror_backfill_rate: float = Field(
        10, ge=0, le=10_000, allow_inf_nan=False,
        description="runs of the past mirrored in a second, into each workspace, behind live runs; 0 pauses them",
    )  # fmt: skip
    mirror_copy_by_url: bool = Field(
        True,
        description="files in Azure Blob are copied by the workspace's storage itself, by URLs signed for reading one "
        "file; else, and where it does not reach them, they are streamed",
    )
    mirror_deleted_models: Literal["keep", "delete"] = Field(
        "keep",
        description="what becomes in the workspace of a model version that is deleted here: it stays, with the tag "
        "`runmirror.deleted`, or goes",
    )
    mirror_page_rows: int = Field(5000, ge=2000, description="changes of a run read at once")
    mirror_debounce: Duration = Field(
        timedelta(seconds=1), description="how long writes of a run are gathered before they are mirrored"
    )
    mirror_poll: Duration = Field(timedelta(seconds=5), description="how often to look for work when nobody calls")
    mirror_lease: Duration = Field(
        timedelta(minutes=2), description="how long a worker may hold a run without progress"
    )
    mirror_timeout: Duration = Field(timedelta(seconds=60), description="longest wait for one answer of Azure")
    mirror_backoff_max: Duration = Field(timedelta(minutes=1), description="longest pause after a failure")
    mirror_settle: Duration = Field(
        timedelta(seconds=5),
        description="pause before Azure is asked what became of a request without an answer (its reads lag its writes)",
    )
    mirror_verify_every: Duration = Field(
        timedelta(hours=1), description="how often one of the workers reads some copies back and compares them"
    )
    mirror_verify_sample: int = Field(10, ge=0, le=1000, description="how many runs it compares then; 0: none")
    mirror_verify_grace: Duration = Field(
        timedelta(seconds=15),
        description="a difference counts only if it is there still after so long (Azure's reads lag its writes)",
    )
    mirror_verify_repair: bool = Field(False, description="have what is found to differ sent again at once")

    webhook_allowed_schemes: Annotated[tuple[Literal["https", "http"], ...], NoDecode, BeforeValidator(_parts)] = Field(
        ("https",), validation_alias=_env("webhook_allowed_schemes", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES"),
        description="schemes a webhook's URL may have, with commas",
    )  # fmt: skip
    webhook_allow_private: bool = Field(
        False, validation_alias=_env("webhook_allow_private", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"),
        description="webhooks may have addresses of the server's own networks and machine",
    )  # fmt: skip
    webhook_secret_key: SecretStr | None = Field(
        None, validation_alias=_env("webhook_secret_key", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"),
        description="Fernet key that encrypts the secrets of webhooks in the database",
    )  # fmt: skip
    webhook_timeout: Duration = Field(
        timedelta(seconds=30), gt=timedelta(0),
        validation_alias=_env("webhook_timeout", "MLFLOW_WEBHOOK_REQUEST_TIMEOUT"),
        description="longest wait for a webhook's answer",
    )  # fmt: skip
    webhook_max_retries: int = Field(
        8, ge=0, le=100, validation_alias=_env("webhook_max_retries", "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES"),
        description="how often a delivery is tried again, after 1, 4, 16 … seconds, at most an hour",
    )  # fmt: skip
    webhook_concurrency: int = Field(
        10, ge=1, le=1000, validation_alias=_env("webhook_concurrency", "MLFLOW_WEBHOOK_DELIVERY_MAX_WORKERS"),
        description="webhooks one process sends to at once",
    )  # fmt: skip

    @field_validator("webhook_secret_key")
    @classmethod
    def _key_is_one_of_fernet(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value():
            try:
                Fernet(value.get_secret_value())
            except ValueError:
                raise ValueError("not a Fernet key: 32 bytes in URL-safe base64") from None
        return value or None

    @field_validator("static_prefix")
    @classmethod
    def _prefix_is_a_path(cls, value: str) -> str:
        prefix = value.rstrip("/")
        if prefix and not re.fullmatch(r"(/[\w\-.~]+)+", prefix):
            raise ValueError(f"{value!r} is not a path like /mlflow")
        return prefix

    @field_validator("x_frame_options", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("ui_dir")
    @classmethod
    def _pages_are_there(cls, value: Path | None) -> Path | None:
        if value is not None and not (value / "index.html").is_file():
            raise ValueError(f"{value} has no index.html: name the folder of MLflow's pages (mlflow/server/js/build)")
        return value

    @field_validator("azureml_workspace")
    @classmethod
    def _workspace_is_an_arm_id(cls, value: str | None) -> str | None:
        return None if not value else workspace_id(value)

    @model_validator(mode="after")
    def _lease_outlives_a_call(self) -> Self:
        if self.mirror_lease <= self.mirror_timeout:
            raise ValueError("RUNMIRROR_MIRROR_LEASE must be longer than RUNMIRROR_MIRROR_TIMEOUT")
        return self

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer_is_who_it_says(cls, value: str | None) -> str | None:
        """Anybody on the way could answer for an address without TLS."""
        if value and not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", value):
            raise ValueError(f"{value!r} is not an https address")
        return value

    @field_validator("public_url")
    @classmethod
    def _public_url_is_an_address(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not re.fullmatch(_PUBLIC_URL, value, re.ASCII):
            raise ValueError(f"{value!r} is not an address like https://tracking.example/mlflow, nor http on loopback")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _browsers_sign_in_where_tokens_are_from(self) -> Self:
        if self.oidc_client_id and self.auth != "entra":
            raise ValueError("RUNMIRROR_OIDC_CLIENT_ID needs RUNMIRROR_AUTH=entra")
        return self

    @model_validator(mode="after")
    def _issuer_is_known(self) -> Self:
        if self.auth == "entra" and not (self.oidc_issuer and self.oidc_audience):
            raise ValueError("RUNMIRROR_AUTH=entra needs RUNMIRROR_OIDC_ISSUER and RUNMIRROR_OIDC_AUDIENCE")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if self.ssl_certfile is None and (self.ssl_keyfile or self.ssl_ca_certs):
            raise ValueError("RUNMIRROR_SSL_KEYFILE and RUNMIRROR_SSL_CA_CERTS need RUNMIRROR_SSL_CERTFILE")
        for file in (self.ssl_certfile, self.ssl_keyfile, self.ssl_ca_certs):
            if file is not None and not file.is_file():
                raise ValueError(f"{file} is not there")
        return self

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Self:
        if self.auth == "none" and self.host not in {"127.0.0.1", "::1", "localhost"} and not self.insecure_no_auth:
            raise ValueError(
                f"refusing to listen on {self.host} without authentication: bind 127.0.0.1, or say "
                "--insecure-no-auth (RUNMIRROR_INSECURE_NO_AUTH=true) if something in front of the server authenticates"
            )
        return self

    @property
    def artifact_root(self) -> str:
        """Where artifact bytes live: a folder or a `wasbs://` address."""
        return self.artifacts_destination or str(self.data_dir / "artifacts")


def workspace_id(value: str) -> str:
    """The ARM id that `value` is, or that the workspace's `config.json` at this path describes.

    Raises `ValueError` when it is neither.
    """
    arm_id = value.rstrip("/") if value.startswith("/subscriptions/") else _arm_id_of_config(Path(value))
    if not WORKSPACE_ID.match(arm_id):
        raise ValueError(
            f"{arm_id!r} is not the ARM id of an Azure ML workspace: expected /subscriptions/…/resourceGroups/…"
            "/providers/Microsoft.MachineLearningServices/workspaces/…"
        )
    return arm_id


def _arm_id_of_config(path: Path) -> str:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return (
            f"/subscriptions/{config['subscription_id']}/resourceGroups/{config['resource_group']}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{config['workspace_name']}"
        )
    except OSError as error:
        raise ValueError(f"{str(path)!r} is neither an ARM id (/subscriptions/…) nor a readable config.json") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} lacks subscription_id, resource_group or workspace_name") from error
