"""What takes a while: operations of the deployed services, over when their time is, well or badly."""

import secrets
import time
from dataclasses import dataclass, field

from azureml_emulator.errors import Json

FAILURE = {
    "code": "DeploymentFailed",
    "message": "The container could not be started",
    "details": [{"code": "CrashLoopBackOff", "message": "the scoring script exited with code 3"}],
}


@dataclass
class LongRunning:
    """Under way until `until`; `fails` is decided when it begins."""

    kind: str
    of: str
    until: float
    fails: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def has_failed(self) -> bool:
        return self.fails and self.is_over

    def state(self, under_way: str) -> str:
        return ("Failed" if self.fails else "Succeeded") if self.is_over else under_way

    @property
    def error(self) -> Json | None:
        return dict(FAILURE) if self.has_failed else None


def begin(kind: str, of: str, seconds: float, *, fails: bool = False) -> LongRunning:
    return LongRunning(kind, of, time.monotonic() + seconds, fails)
