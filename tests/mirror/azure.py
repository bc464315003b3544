"""The emulated workspace as the target of a worker in this process."""

from collections import Counter
from typing import Any

from tests.azureml_emulator.process import EmulatorProcess

Json = dict[str, Any]


def remote_run(emulator: EmulatorProcess, run_id: str) -> Json:
    """The one run in the workspace that mirrors ours."""
    found = [run for run in emulator.state()["runs"] if run["tags"].get("runmirror.run_id") == run_id]
    assert len(found) == 1, f"{len(found)} runs in the workspace for {run_id}"
    run: Json = found[0]
    return run


def points_of(run: Json, key: str) -> list[tuple[int, int, float]]:
    """Step, time and value of every point, in the order of steps."""
    return sorted((p["step"], p["timestamp"], float(p["value"])) for p in run["metrics"] if p["key"] == key)


def files_of(run: Json) -> dict[str, tuple[int | None, str | None]]:
    """Size and base64 MD5 of every file."""
    paths = Counter(file["path"] for file in run["artifacts"])
    assert set(paths.values()) <= {1}, "a path twice"
    return {file["path"]: (file["size"], file["md5"]) for file in run["artifacts"]}
