"""The parts of one running emulator, passed to every request handler."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from azureml_emulator.faults import Faults
from azureml_emulator.recorder import Recorder
from azureml_emulator.sas import Signer
from azureml_emulator.settings import Settings
from azureml_emulator.state import State
from azureml_emulator.tokens import Issuer
from azureml_emulator.workspace import Workspace, new_guid

if TYPE_CHECKING:
    from azureml_emulator.scoring import Scorer


@dataclass
class Emulator:
    """One workspace, and `others` beside it: they share the tenant, the settings, the faults and the record."""

    workspace: Workspace
    data_dir: Path
    settings: Settings
    issuer: Issuer
    signer: Signer
    state: State = field(default_factory=State)
    faults: Faults = field(default_factory=Faults)
    recorder: Recorder = field(default_factory=Recorder)
    others: tuple["Emulator", ...] = ()
    # Whether deployed models answer, and the processes that do.
    scores: bool = False
    scorers: dict[str, "Scorer"] = field(default_factory=dict)

    def __iter__(self) -> Iterator["Emulator"]:
        """Every workspace, this one first."""
        return iter((self, *self.others))

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(host for each in self for host in each.workspace.hosts))

    @property
    def scoring_hosts(self) -> tuple[str, ...]:
        """Ends of the names under which deployed models answer: by TLS the first, without it the others."""
        region = self.workspace.region
        return f".{region}.inference.ml.azure.com", f".{region}.azurecontainer.io", f".{region}.cloudapp.azure.com"

    @property
    def blob_dir(self) -> Path:
        return self.data_dir / "blobs"

    def reset(self) -> None:
        """Forget every run, file, fault and request, in all workspaces; settings stay as they are."""
        self.faults.clear()
        self.recorder.clear()
        for each in self:
            each.state = State()
            shutil.rmtree(each.blob_dir, ignore_errors=True)
            each.blob_dir.mkdir(parents=True)


def new_emulator(
    workspace: Workspace, data_dir: Path, settings: Settings, *, others: Sequence[str] = (), scores: bool = False
) -> Emulator:  # fmt: skip
    """Make an empty workspace whose blobs live in a folder, and others of these names in its resource group."""
    emulator = Emulator(
        workspace=workspace,
        data_dir=data_dir,
        settings=settings,
        issuer=Issuer(workspace.tenant_id),
        signer=Signer(workspace.account),
        scores=scores,
    )
    emulator.others = tuple(_beside(emulator, name) for name in others)
    emulator.reset()
    return emulator


def _beside(emulator: Emulator, name: str) -> Emulator:
    workspace = replace(emulator.workspace, name=name, guid=new_guid())
    return Emulator(
        workspace=workspace,
        data_dir=emulator.data_dir / "workspaces" / name,
        settings=emulator.settings,
        issuer=emulator.issuer,
        signer=Signer(workspace.account),
        faults=emulator.faults,
        recorder=emulator.recorder,
        scores=emulator.scores,
    )
