"""Starts the emulator as its users do, as a process, and reaches it from tests."""

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SERVER = Path(__file__).parents[2] / "server"
Json = dict[str, Any]


@dataclass(frozen=True)
class EmulatorProcess:
    """A running emulator: the members of its ready line, and what tests do with it."""

    ready: Json
    home: Path
    pid: int

    @property
    def proxy_url(self) -> str:
        return str(self.ready["proxy_url"])

    @property
    def control_url(self) -> str:
        return str(self.ready["control_url"])

    @property
    def ca_file(self) -> str:
        return str(self.ready["ca_file"])

    @property
    def workspace_id(self) -> str:
        return str(self.ready["workspace_id"])

    @property
    def other_workspace_ids(self) -> list[str]:
        """Of those that were asked for by `beside`."""
        return list(self.ready["other_workspace_ids"])

    @property
    def tenant_id(self) -> str:
        return str(self.ready["tenant_id"])

    @property
    def client_id(self) -> str:
        return str(self.ready["client_id"])

    @property
    def client_secret(self) -> str:
        return str(self.ready["client_secret"])

    @property
    def api_url(self) -> str:
        return str(self.ready["api_url"])

    def client(self) -> httpx.Client:
        """A client that reaches the emulated hosts, and no other, by their production names."""
        trust = ssl.create_default_context(cafile=self.ca_file)
        return httpx.Client(proxy=httpx.Proxy(self.proxy_url), verify=trust, trust_env=False, timeout=30)

    def control(self) -> httpx.Client:
        # It is plain HTTP: reading the system's certificates would only take time.
        return httpx.Client(base_url=f"{self.control_url}/_emulator", trust_env=False, verify=False, timeout=30)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        with self.control() as control:
            answer = control.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json()

    def state(self, workspace: str = "workspace") -> Json:
        """Everything that stands in a workspace."""
        state: Json = self._call("GET", f"/state?workspace={workspace}")
        return state

    def requests(self, *, unknown: bool = False, refused: bool = False) -> list[Json]:
        """What was asked, oldest first."""
        found: list[Json] = self._call("GET", f"/requests?unknown={int(unknown)}&refused={int(refused)}")["requests"]
        return found

    def add_fault(self, kind: str, match: Json | None = None, **others: Any) -> str:
        """Spoil matching requests; kinds and members are those of POST /_emulator/faults."""
        return str(self._call("POST", "/faults", {"kind": kind, "match": match or {}, **others})["id"])

    def faults(self) -> list[Json]:
        found: list[Json] = self._call("GET", "/faults")["faults"]
        return found

    def clear_faults(self) -> None:
        self._call("DELETE", "/faults")

    def change_settings(self, **settings: Any) -> Json:
        """Change lifetimes, lags, switches and limits of the running emulator."""
        changed: Json = self._call("POST", "/settings", settings)
        return changed

    def reset(self) -> None:
        self._call("POST", "/reset")

    def token(self, scope: str = "https://management.azure.com/.default") -> str:
        """An access token of the workspace's service principal."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": scope,
        }
        with self.client() as client:
            answer = client.post(f"https://login.microsoftonline.com/{self.tenant_id}/oauth2/v2.0/token", data=form)
            answer.raise_for_status()
            return str(answer.json()["access_token"])

    def env(self) -> dict[str, str]:
        """The environment in which unmodified Azure clients reach this workspace and nothing else."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home),
            "HTTPS_PROXY": self.proxy_url,
            "https_proxy": self.proxy_url,
            "HTTP_PROXY": self.proxy_url,
            "http_proxy": self.proxy_url,
            "NO_PROXY": "",
            "no_proxy": "",
            "REQUESTS_CA_BUNDLE": self.ca_file,
            "SSL_CERT_FILE": self.ca_file,
            "AZURE_TENANT_ID": self.tenant_id,
            "AZURE_CLIENT_ID": self.client_id,
            "AZURE_CLIENT_SECRET": self.client_secret,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }


def _flags(options: dict[str, str | float | bool]) -> list[str]:
    flags = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        flags += [flag] if value is True else [] if value is False else [flag, str(value)]
    return flags


@contextmanager
def start_emulator(tmp_path: Path, **options: str | float | bool) -> Iterator[EmulatorProcess]:
    """Run an emulator as long as the block lasts; options are its command-line flags."""
    folder, home = tmp_path / "emulator", tmp_path / "emulator-home"
    folder.mkdir(parents=True, exist_ok=True)
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "azureml_emulator", "--data-dir", str(folder), *_flags(options)]
    environment = {**os.environ, "PYTHONPATH": str(SERVER), "PYTHONDONTWRITEBYTECODE": "1"}
    errors = folder / "stderr.txt"
    with (
        errors.open("w") as log,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"The emulator did not start: {errors.read_text()}")
            yield EmulatorProcess(json.loads(line), home, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
