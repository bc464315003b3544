"""Runs `azureml_program.py` by a Python that has azureml-core, which the worker's own need not have.

azureml-core wants Python and packages of its own age, and keeps files in its home: it gets a process, an environment
and a home of its own, a token instead of our credentials, and as long as the lease holds.
"""

import asyncio
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runmirror.mirror.redact import redact
from runmirror.mirror.target import TargetRejected, TargetUnavailable
from runmirror.settings import Settings

_HERE = Path(__file__).parent
_LONGEST_S = 600.0
_PASSED_ON = (
    "PATH", "LANG", "LC_ALL", "TMPDIR", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY",
    "no_proxy", "ALL_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE",
)  # fmt: skip
_CLOUDS = {
    "management.chinacloudapi.cn": "AzureChinaCloud",
    "management.usgovcloudapi.net": "AzureUSGovernment",
}
NO_PYTHON = (
    "deploying to ACI and AKS goes through azureml-core, which this worker has not: make an environment with "
    "`pip install azureml-core` and set RUNMIRROR_AZUREML_PYTHON to its python"
)


def script() -> str:
    """What answers in the container."""
    return (_HERE / "score.py").read_text(encoding="utf-8")


async def create_service(
    settings: Settings, asked: dict[str, Any], stay: Callable[[], Awaitable[None]], every_s: float
) -> str:
    """Ask for a service: the operation that makes it. `stay` is called every so often, and may raise.

    Raises `TargetRejected` or `TargetUnavailable`.
    """
    told = await _run(_python(settings), settings, json.dumps(asked), stay, every_s)
    if "operation" in told:
        return str(told["operation"])
    if "unavailable" in told:
        raise TargetUnavailable(redact(str(told["unavailable"])), uncertain=True)
    raise TargetRejected(redact(str(told.get("refused"))))


def _python(settings: Settings) -> str:
    if settings.azureml_python is not None:
        if not settings.azureml_python.is_file():
            raise TargetRejected(f"RUNMIRROR_AZUREML_PYTHON: {settings.azureml_python} is not there")
        return str(settings.azureml_python)
    try:
        has_it = importlib.util.find_spec("azureml.core") is not None
    except ModuleNotFoundError:
        has_it = False
    if not has_it:
        raise TargetRejected(NO_PYTHON)
    return sys.executable


async def _run(
    python: str, settings: Settings, asked: str, stay: Callable[[], Awaitable[None]], every_s: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="runmirror-azureml-", ignore_cleanup_errors=True) as home:
        child = await asyncio.create_subprocess_exec(
            python, str(_HERE / "azureml_program.py"), cwd=home, env=_environment(settings, home),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        talking = asyncio.create_task(child.communicate(asked.encode()))
        try:
            async with asyncio.timeout(_LONGEST_S):
                while not (await asyncio.wait({talking}, timeout=every_s))[0]:
                    await stay()
        except TimeoutError:
            raise TargetUnavailable("azureml-core gave no answer in ten minutes", uncertain=True) from None
        finally:
            if not talking.done():
                with suppress(ProcessLookupError):
                    child.kill()
                await talking
        out, errors = talking.result()
    return _told(out, errors, child.returncode)


def _environment(settings: Settings, home: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if settings.ca_bundle is not None:
        kept |= {"REQUESTS_CA_BUNDLE": settings.ca_bundle, "SSL_CERT_FILE": settings.ca_bundle}
    host = urlsplit(settings.azureml_arm_endpoint).hostname or ""
    return kept | {
        "HOME": home, "AZUREML_CURRENT_CLOUD": _CLOUDS.get(host, "AzureCloud"),
        "AZUREML_LOG_DEPRECATION_WARNING_ENABLED": "False", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


def _told(out: bytes, errors: bytes, code: int | None) -> dict[str, Any]:
    lines = out.decode(errors="replace").strip().splitlines()
    with suppress(ValueError):
        told = json.loads(lines[-1]) if lines else None
        if isinstance(told, dict):
            return told
    end = errors.decode(errors="replace").strip().splitlines()[-1:]
    return {"unavailable": f"the program that asks azureml-core ended with {code}: {' '.join(end)}"}
