"""The parts of one running emulator, passed to every request handler."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from azureml_emulator.faults import Faults
from azureml_emulator.recorder import Recorder
from azureml_emulator.sas import Signer
from azureml_emulator.settings import Settings
from azureml_emulator.state import State
from azureml_emulator.tokens import Issuer
from azureml_emulator.workspace import Workspace


@dataclass
class Emulator:
    workspace: Workspace
    data_dir: Path
    settings: Settings
    issuer: Issuer
    signer: Signer
    state: State = field(default_factory=State)
    faults: Faults = field(default_factory=Faults)
    recorder: Recorder = field(default_factory=Recorder)

    @property
    def blob_dir(self) -> Path:
        return self.data_dir / "blobs"

    def reset(self) -> None:
        """Forget every run, file, fault and request; settings stay as they are."""
        self.state = State()
        self.faults.clear()
        self.recorder.clear()
        shutil.rmtree(self.blob_dir, ignore_errors=True)
        self.blob_dir.mkdir(parents=True)


def new_emulator(workspace: Workspace, data_dir: Path, settings: Settings) -> Emulator:
    """Make an empty workspace whose blobs live in a folder."""
    emulator = Emulator(
        workspace=workspace,
        data_dir=data_dir,
        settings=settings,
        issuer=Issuer(workspace.tenant_id),
        signer=Signer(workspace.account),
    )
    emulator.reset()
    return emulator
