"""Microsoft's own package as a second witness, in a virtual environment of its own: its pins do not suit ours."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from runmirror.demo.processes import ChildFailed, Children, Say
from runmirror.demo.services import Workspace
from runmirror.demo.snapshot import Snapshot, read_snapshot

REQUIREMENTS = Path(__file__).with_name("azureml-requirements.txt")
_READER = Path(__file__).with_name("azure_sdk_reader.py")


def ensure_environment(children: Children, place: Path, environ: Mapping[str, str], say: Say) -> Path:
    """The Python of the environment at `place`, which is made or filled if need be; pip gets the user's `environ`."""
    python = place / "bin" / "python"
    if python.exists() and _has_azureml_core(children, python, environ):
        return python
    say(f"installing azureml-core into {place} (some 60 packages; once, it takes minutes) ...")
    make = children.start("venv", [sys.executable, "-m", "venv", str(place)], environ)
    children.follow(make, "making the environment")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "-r", str(REQUIREMENTS)]
    children.follow(children.start("pip", pip, environ), "pip is installing azureml-core")
    return python


def _has_azureml_core(children: Children, python: Path, environ: Mapping[str, str]) -> bool:
    probe = children.start("probe", [str(python), "-c", "import azureml.core"], environ)
    try:
        children.follow(probe, "looking for azureml-core")
    except ChildFailed:
        return False
    return True


def read_run(
    children: Children,
    python: Path,
    environment: Mapping[str, str],
    *,
    workspace: Workspace,
    remote_run_id: str,
) -> Snapshot:
    """The run `remote_run_id` of the workspace, as azureml-core sees it."""
    given = json.dumps({**asdict(workspace), "run_id": remote_run_id})
    reader = children.start("azureml-core", [str(python), str(_READER)], environment, given=given)
    return read_snapshot(json.loads(children.follow(reader, "azureml-core is reading the workspace")))
