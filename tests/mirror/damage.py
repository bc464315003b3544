"""Rewriting what stands in the emulated workspace, as no client could."""

from typing import Any
from urllib.parse import quote

from tests.azureml_emulator.process import EmulatorProcess
from tests.mirror.azure import Json, remote_run
from tests.mirror.factories import SourceRun


class Damage:
    """Done to the one copy of a run."""

    def __init__(self, emulator: EmulatorProcess, run: SourceRun) -> None:
        self._emulator = emulator
        self._run_id = run.run_id.hex

    @property
    def remote(self) -> Json:
        return remote_run(self._emulator, self._run_id)

    def rewrite(self, **members: Any) -> None:
        self._do("PATCH", f"/runs/{self.remote['run_id']}", json=members)

    def points(self, *changed: Json) -> None:
        self.rewrite(metrics=list(changed))

    def without(self, member: str, key: str) -> None:
        self.rewrite(**{member: {name: value for name, value in self.remote[member].items() if name != key}})

    def with_value(self, member: str, key: str, value: str) -> None:
        self.rewrite(**{member: self.remote[member] | {key: value}})

    def lose_run(self) -> None:
        self._do("DELETE", f"/runs/{self.remote['run_id']}")

    def write_file(self, path: str, content: bytes) -> None:
        self._do("PUT", f"/runs/{self.remote['run_id']}/files/{quote(path)}", content=content)

    def lose_file(self, path: str, *, only_bytes: bool = False) -> None:
        self._do("DELETE", f"/runs/{self.remote['run_id']}/files/{quote(path)}?blob={int(only_bytes)}")

    def rename_experiment(self, name: str) -> None:
        self._do("PATCH", f"/experiments/{self.remote['experiment_id']}", json={"name": name})

    def _do(self, method: str, path: str, **request: Any) -> None:
        with self._emulator.control() as control:
            control.request(method, path, **request).raise_for_status()
