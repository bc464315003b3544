"""What stands in the workspace, read over its own REST interface with a token of the reader's own.

Nothing here comes from runmirror, so that a mistake of the mirror cannot hide in the check of it.
"""

import hashlib
import ssl
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import quote

import httpx

from runmirror.demo.services import Workspace
from runmirror.demo.snapshot import File, Point, Snapshot

_LOGIN = "https://login.microsoftonline.com"
_ARM = "https://management.azure.com"
_TIMEOUT_S = 30.0
_PAGE = 100


class NotInWorkspace(Exception):
    """The workspace does not have exactly one run that says it is ours."""


class WorkspaceReader:
    """A client of the workspace that signs in by itself; use it as a context manager."""

    def __init__(self, workspace: Workspace) -> None:
        trust = ssl.create_default_context(cafile=workspace.ca_file)
        self._http = httpx.Client(
            proxy=workspace.proxy_url, verify=trust, trust_env=False, timeout=_TIMEOUT_S, follow_redirects=False
        )
        self._workspace = workspace

    def __enter__(self) -> Self:
        self._http.headers["Authorization"] = f"Bearer {self._sign_in()}"
        resource = self._json("GET", f"{_ARM}{self._workspace.arm_id}", params={"api-version": "2022-05-01"})
        host = httpx.URL(resource["properties"]["mlFlowTrackingUri"]).host
        self._mlflow = f"https://{host}/mlflow/v2.0{self._workspace.arm_id}/api/2.0/mlflow"
        self._history = f"https://{host}/history/v1.0{self._workspace.arm_id}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def read_run(self, run_id: str) -> Snapshot:
        """The copy of runmirror's run `run_id`. Raises `NotInWorkspace`, or `httpx.HTTPError`."""
        run = self._find(run_id)
        info, parts = run["info"], run.get("data", {})
        return Snapshot(
            status=info["status"],
            name=info.get("run_name"),
            start_time_ms=info.get("start_time"),
            end_time_ms=info.get("end_time"),
            params={param["key"]: param["value"] for param in parts.get("params", [])},
            tags={tag["key"]: tag["value"] for tag in parts.get("tags", [])},
            metrics={m["key"]: tuple(self._points(info["run_id"], m["key"])) for m in parts.get("metrics", [])},
            files=dict(self._files(info["experiment_id"], info["run_id"])),
        )

    def remote_run_id(self, run_id: str) -> str:
        """The workspace's own id of our run."""
        return str(self._find(run_id)["info"]["run_id"])

    def _sign_in(self) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._workspace.client_id,
            "client_secret": self._workspace.client_secret,
            "scope": f"{_ARM}/.default",
        }
        answer = self._json("POST", f"{_LOGIN}/{self._workspace.tenant_id}/oauth2/v2.0/token", data=form)
        return str(answer["access_token"])

    def _find(self, run_id: str) -> dict[str, Any]:
        experiments = self._pages("POST", "experiments/search", "experiments", {"max_results": _PAGE})
        asked = {
            "experiment_ids": [experiment["experiment_id"] for experiment in experiments],
            "filter": f"tags.\"runmirror.run_id\" = '{run_id}'",
            "run_view_type": "ALL",
            "max_results": _PAGE,
        }
        runs: list[dict[str, Any]] = list(self._pages("POST", "runs/search", "runs", asked))
        if len(runs) != 1:
            raise NotInWorkspace(
                f"the workspace has {len(runs)} runs with the tag runmirror.run_id = {run_id}, not one"
            )
        return runs[0]

    def _points(self, remote_run_id: str, key: str) -> Iterator[Point]:
        asked = {"run_id": remote_run_id, "metric_key": key, "max_results": _PAGE}
        for point in self._pages("GET", "metrics/get-history", "metrics", asked):
            yield Point(float(point["value"]), int(point.get("step", 0)), int(point["timestamp"]))

    def _files(self, experiment_id: str, remote_run_id: str) -> Iterator[tuple[str, File]]:
        base = f"{self._history}/experimentids/{experiment_id}/runs/{remote_run_id}/artifacts"
        link: str | None = base
        while link is not None:
            page = self._json("GET", link)
            for artifact in page["value"]:
                content = self._json("GET", f"{base}/contentinfo?path={quote(artifact['path'])}")
                yield artifact["path"], self._hash(content["contentUri"])
            link = page.get("nextLink")

    def _hash(self, content_uri: str) -> File:
        """Size and hash of a blob. Its URL holds its own credential, so our token stays out of the request."""
        digest, size_bytes = hashlib.sha256(), 0
        request = self._http.build_request("GET", content_uri, headers={"x-ms-version": "2021-08-06"})
        del request.headers["Authorization"]
        answer = self._http.send(request, stream=True)
        try:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                size_bytes += len(chunk)
        finally:
            answer.close()
        return File(size_bytes, digest.hexdigest())

    def _pages(self, method: str, path: str, member: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while True:
            page = asked if token is None else {**asked, "page_token": token}
            answer = self._json(method, f"{self._mlflow}/{path}", **{"json" if method == "POST" else "params": page})
            yield from answer.get(member, [])
            token = answer.get("next_page_token")
            if not token:
                return

    def _json(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        answer = self._http.request(method, url, **options)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document
