"""Commands that serve, mirror, migrate, and show how all of it works together."""

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import sys
from functools import partial
from typing import Any

import click
import uvicorn

from runmirror import __version__, logs
from runmirror.command_line.shared import (
    bring_up_to_date,
    data_dir_option,
    database_option,
    open_database,
    read_settings,
    settings_environment,
    trust,
)

_GRACE_S = 25  # what a request in flight gets at SIGTERM


@click.command()
@click.option("--host", help="address to listen on (default 127.0.0.1)")
@click.option("--port", type=int, help="port to listen on (default 5000)")
@click.option("--workers", type=int, help="API processes (default 1)")
@click.option("--ssl-certfile", metavar="FILE", help="speak TLS with this certificate (PEM)")
@click.option("--ssl-keyfile", metavar="FILE", help="its key, if it is in a file of its own")
@click.option("--ssl-ca-certs", metavar="FILE", help="serve only clients with a certificate of these authorities")
@click.option("--static-prefix", help="path below which everything is served, e.g. /mlflow")
@click.option("--allowed-hosts", metavar="HOSTS", help="names the server is called by, with commas (default: private)")
@click.option("--cors-allowed-origins", metavar="ORIGINS", help="other origins whose pages may call, with commas")
@click.option("--x-frame-options", help="who may show the pages in a frame: SAMEORIGIN (default), DENY or NONE")
@click.option(
    "--expose-prometheus", metavar="FOLDER", help="where API processes share their counts (default: a temporary folder)"
)
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
@click.option("--mirror/--no-mirror", default=None, help="run the mirror worker too (default yes)")
@click.option("--insecure-no-auth", is_flag=True, default=None, help="listen beyond loopback without authentication")
def serve(**flags: Any) -> None:
    """Serve the tracking API, with the mirror worker beside it."""
    from runmirror.door.origins import who_may_call
    from runmirror.door.patience import Patience, PatientProtocol
    from runmirror.metrics.shared import shared_counts
    from runmirror.supervisor import worker_process
    from runmirror.webhooks.secrets import kept_key

    settings = read_settings(flags)
    try:
        who_may_call(settings)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    logs.configure(settings.log_format, logging.WARNING)
    trust(settings)
    _end_in_order()
    several = settings.workers > 1 and settings.metrics
    folder = shared_counts(settings.expose_prometheus) if several else contextlib.nullcontext(dict[str, str]())
    with folder as counts, open_database(settings) as url:
        bring_up_to_date(url)
        environment = settings_environment(flags, url) | counts
        if settings.database_url is None and settings.webhook_secret_key is None:
            # The database is in the data directory, so what it holds can be encrypted with a key that is there too.
            environment["RUNMIRROR_WEBHOOK_SECRET_KEY"] = kept_key(settings.data_dir)
        os.environ.update(environment)  # uvicorn's processes and the worker read their settings from here
        scheme = "http" if settings.ssl_certfile is None else "https"
        click.echo(f"runmirror {__version__} on {scheme}://{settings.host}:{settings.port}", err=True)
        with worker_process(os.environ) if settings.mirror else contextlib.nullcontext():
            uvicorn.run(
                "runmirror.asgi:create",
                factory=True,
                host=settings.host,
                port=settings.port,
                workers=settings.workers,
                log_level="warning",
                log_config=None,  # its lines go where ours go
                access_log=False,
                http=partial(PatientProtocol, patience=Patience(settings.client_timeout.total_seconds())),  # type: ignore[arg-type]  # it is called
                timeout_graceful_shutdown=_GRACE_S,
                server_header=False,
                ws="none",
                ssl_certfile=settings.ssl_certfile,
                ssl_keyfile=settings.ssl_keyfile,
                ssl_ca_certs=None if settings.ssl_ca_certs is None else str(settings.ssl_ca_certs),
                ssl_cert_reqs=ssl.CERT_NONE if settings.ssl_ca_certs is None else ssl.CERT_REQUIRED,
            )


@click.command()
@database_option
@data_dir_option
@click.option("--artifacts-destination", help="a folder, or wasbs://container@account.blob.core.windows.net/path")
@click.option("--azureml-workspace", help="ARM id of the workspace to mirror into, or the path of its config.json")
def worker(**flags: Any) -> None:
    """Mirror runs into the linked workspace, apart from any server; run as many as you like."""
    settings = read_settings(flags)
    trust(settings)
    from runmirror.mirror.loop import fast_loop
    from runmirror.mirror.worker import run_worker
    from runmirror.supervisor import stop_with_parent

    logs.configure(settings.log_format, logging.INFO)
    stop_with_parent()
    with open_database(settings) as url, asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(run_worker(settings, url))


@click.command()
@database_option
@data_dir_option
def migrate(**flags: Any) -> None:
    """Bring the database to this version's schema."""
    from runmirror.migrate import head_revision

    with open_database(read_settings(flags)) as url:
        bring_up_to_date(url)
        click.echo(f"database is at revision {head_revision()}")


@click.command()
@click.option("--once", is_flag=True, help="end after the comparison; exit code 1 if the two sides differ")
@click.option("--azure-sdk", is_flag=True, help="read the workspace back through the real azureml-core")
@click.option("--port", type=int, default=0, help="port of the demo server (default: a free one)")
def demo(*, once: bool, azure_sdk: bool, port: int) -> None:
    """Train a small model against runmirror and show that the workspace (an emulator) has all of it."""
    from runmirror.demo import run_demo

    sys.exit(run_demo(once=once, azure_sdk=azure_sdk, port=port))


def _end_in_order() -> None:
    """uvicorn raises the signal that stopped it once more; let it unwind us, so that what we started is stopped too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
