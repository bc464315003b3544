"""The demo, step by step."""

import importlib.util
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import httpx

from runmirror.demo import azure_sdk as sdk
from runmirror.demo.compare import Comparison, compare
from runmirror.demo.processes import Child, ChildFailed, Children, Progress, Stopped, plain_environment
from runmirror.demo.services import Workspace, loopback_client, start_emulator, start_server
from runmirror.demo.show import table
from runmirror.demo.snapshot import Snapshot, read_snapshot
from runmirror.demo.workspace_side import NotInWorkspace, WorkspaceReader

_NEEDED = {"matplotlib": "matplotlib", "mlflow": "mlflow", "sklearn": "scikit-learn"}
_TRAIN = Path(__file__).with_name("train.py")
_SOURCE_READER = Path(__file__).with_name("source_side.py")
_MIRROR_S = 120.0
_POLL_S = 0.1


class MirrorIncomplete(Exception):
    """The workspace did not have everything in time."""


def run_demo(*, once: bool, azure_sdk: bool, port: int) -> int:
    """Train, mirror, compare, show; then serve until Ctrl-C, unless `once`. The answer is the exit code."""
    if missing := [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]:
        click.echo(f"The demo needs {', '.join(missing)}: pip install 'runmirror[demo]'", err=True)
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace", line_buffering=True)  # ✓ is not in every terminal's alphabet
    with tempfile.TemporaryDirectory(prefix="runmirror-demo-", ignore_cleanup_errors=True) as folder:
        try:
            with Children(Path(folder), click.echo) as children:
                return Demo(children, Path(folder), dict(os.environ), azure_sdk=azure_sdk, port=port).run(once=once)
        except Stopped as stopped:
            click.echo(f"\nended by {stopped} before the comparison was done")
            return stopped.exit_code
        except (ChildFailed, MirrorIncomplete, NotInWorkspace) as error:
            click.echo(f"\n{error}", err=True)
        except httpx.HTTPError as error:
            click.echo(f"\na request failed: {_say_http(error)}", err=True)
        return 1


def exit_code(comparisons: Iterable[Comparison]) -> int:
    """0 when there is something to compare, and all of it is equal."""
    compared = list(comparisons)
    return 0 if compared and all(comparison.equal for comparison in compared) else 1


class Demo:
    """One run of the demo, with what all of its steps need."""

    def __init__(
        self,
        children: Children,
        folder: Path,
        environ: Mapping[str, str],
        *,
        azure_sdk: bool = False,
        port: int = 0,
        sign_in: tuple[str, str] | None = None,
    ) -> None:
        self._children = children
        self._folder = folder
        self._environ = environ
        self._plain = plain_environment(environ)
        self._azure_sdk = azure_sdk
        self._port = port
        self._sign_in = sign_in  # a user and a token, where the server asks for them

    def run(self, *, once: bool) -> int:
        """All steps; the answer is the exit code."""
        try:
            return self._run(once=once)
        except (ChildFailed, httpx.TransportError):
            self._children.look_for_the_dead()  # a program that is gone explains best what others suffer from
            raise

    def _run(self, *, once: bool) -> int:
        click.echo(f"1  starting a stand-in for an Azure ML workspace, and runmirror; their data is in {self._folder}")
        workspace = start_emulator(self._children, self._folder, self._plain)
        click.echo(f"   workspace  {workspace.arm_id}")
        url, server = start_server(self._children, self._folder, self._plain, workspace=workspace, port=self._port)
        click.echo(f"   runmirror  {url}  (Postgres, API and mirror worker)")
        shown, code = self.log_and_compare(workspace, url, server)
        if not once:
            try:
                click.echo(f"\nOpen {shown}   Ctrl-C ends it.")
                self._children.serve()
            except Stopped:
                click.echo("\nstopping ...")
        return code

    def log_and_compare(self, workspace: Workspace, url: str, server: Child | None = None) -> tuple[str, int]:
        """Train against the server at `url` and compare the run with its copy: the page to see, and the exit code."""
        click.echo(f"2  training with the plain mlflow client; all it is told is MLFLOW_TRACKING_URI={url}")
        pages = self._has_pages(url)
        run_id = self._train(url, pages=pages)

        click.echo("3  waiting until the workspace has everything")
        mirrored_at = self._wait_for_mirror(url, server, run_id)

        click.echo("4  reading both sides back")
        source = self._read_source(url, run_id)
        compared = self._compare(workspace, run_id, source)
        click.echo(f"\n{mirror_time(source, mirrored_at)}")
        click.echo(f"The mirror of this run: {url}{_mirror_path(run_id)}")
        return url if pages else url + _mirror_path(run_id), exit_code(compared)

    def _has_pages(self, url: str) -> bool:
        """Whether this server has web pages to open."""
        with loopback_client(url, self._sign_in) as http:
            return http.get("/").status_code == 200

    def _train(self, url: str, *, pages: bool) -> str:
        environment = self._client_environment(url)
        if not pages:  # then the links that mlflow prints lead nowhere
            environment["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        child = self._children.start("training", [sys.executable, str(_TRAIN)], environment)
        ended: dict[str, Any] = json.loads(self._children.follow(child, "training"))
        if loaded := ended["azure_modules"]:
            # Some plugin of this environment did it; the run is none the worse for it, but people should know.
            click.echo(f"   note: {len(loaded)} Azure modules were loaded, {loaded[0]} among them")
        else:
            click.echo("   no Azure package was loaded, no Azure credential was in its environment")
        return str(ended["run_id"])

    def _client_environment(self, url: str) -> dict[str, str]:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        user, token = self._sign_in or ("", "")
        known = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": token} if token else {}
        places = {"MLFLOW_TRACKING_URI": url, "MPLCONFIGDIR": str(self._folder / "matplotlib")}
        return {**self._plain, **quiet, **known, **places}

    def _wait_for_mirror(self, url: str, server: Child | None, run_id: str) -> datetime:
        """When the workspace had everything, by the server's clock. Raises `MirrorIncomplete`."""
        progress = Progress(click.echo, "mirroring")
        with loopback_client(url, self._sign_in) as http:
            while True:
                self._children.check()
                mirror = _mirror_of(http, run_id)
                if mirror.get("state") == "current":
                    return datetime.fromisoformat(mirror["mirrored_at"])
                if mirror.get("state") == "quarantined" or progress.passed_s > _MIRROR_S:
                    raise _incomplete(mirror, progress.passed_s, server)
                progress.tell(f"{mirror.get('watermark', 0)} of {mirror.get('seq', '?')} writes are there")
                time.sleep(_POLL_S)

    def _read_source(self, url: str, run_id: str) -> Snapshot:
        click.echo("   runmirror, by the mlflow client")
        command = [sys.executable, str(_SOURCE_READER), run_id]
        child = self._children.start("mlflow", command, self._client_environment(url))
        answer = self._children.follow(child, "the mlflow client is reading runmirror")
        return read_snapshot(json.loads(answer))

    def _compare(self, workspace: Workspace, run_id: str, source: Snapshot) -> list[Comparison]:
        click.echo("   the workspace, by its own REST API and with a token of its own")
        with WorkspaceReader(workspace) as reader:
            target = reader.read_run(run_id)
            remote_run_id = reader.remote_run_id(run_id)
        click.echo(f"\nThe run {run_id}, and its copy {remote_run_id}\n")
        compared = [_show(source, target, "workspace, by its REST API")]
        if self._azure_sdk:
            place = Path(self._environ.get("RUNMIRROR_AZUREML_VENV") or ".venv-azureml").absolute()
            click.echo("\nThe same through azureml-core, which is told values of metrics only, and no params\n")
            python = sdk.ensure_environment(self._children, place, self._environ, click.echo)
            caches = {"HOME": str(self._folder), "AZURE_CONFIG_DIR": str(self._folder / "azure")}
            environment = {**self._plain, **workspace.network(), **caches}
            read = sdk.read_run(self._children, python, environment, workspace=workspace, remote_run_id=remote_run_id)
            compared.append(_show(source, read, "workspace, by azureml-core"))
        return compared


def mirror_time(source: Snapshot, mirrored_at: datetime) -> str:
    """How long the copy took: from the run's last write, its end, until the worker had the workspace's answer."""
    after_s = mirrored_at.timestamp() - (source.end_time_ms or 0) / 1000
    points = sum(len(points) for points in source.metrics.values())
    return (
        f"{after_s:.1f} s after the run ended the workspace had all of it: {points:,} metric points, "
        f"{len(source.files)} files, {sum(file.size_bytes for file in source.files.values()) / 1000:.0f} kB."
    )


def _show(source: Snapshot, target: Snapshot, title: str) -> Comparison:
    comparison = compare(source, target)
    click.echo(table(comparison, "runmirror, by mlflow client", title))
    return comparison


def _mirror_path(run_id: str) -> str:
    return f"/api/runmirror/v1/runs/{run_id}/mirror"


def _mirror_of(http: httpx.Client, run_id: str) -> dict[str, Any]:
    answer = http.get(_mirror_path(run_id))
    answer.raise_for_status()
    mirror: dict[str, Any] = answer.json()
    return mirror


def _incomplete(mirror: Mapping[str, Any], passed_s: float, server: Child | None) -> MirrorIncomplete:
    why = mirror.get("last_error") or "it gives no reason"
    failure = "" if server is None else f"\n{server.failure('is still running')}"
    return MirrorIncomplete(
        f"after {passed_s:.0f} s the mirror of the run is {mirror.get('state', 'unknown')}: {why}{failure}"
    )


def _say_http(error: httpx.HTTPError) -> str:
    """What went wrong, without the query of a URL: a SAS is a secret."""
    if isinstance(error, httpx.HTTPStatusError):
        url = error.request.url.copy_with(query=None)
        return f"{error.request.method} {url} answered {error.response.status_code}: {error.response.text[:300]}"
    return f"{type(error).__name__} ({error})"
