"""What can be changed while the emulator runs."""

from dataclasses import asdict, dataclass, field
from typing import Any

from azureml_emulator import limits
from azureml_emulator.errors import InvalidParameter
from azureml_emulator.limits import Limits


@dataclass
class Settings:
    """Lifetimes, lags and switches; the control port changes them."""

    token_lifetime: float = 3600
    sas_lifetime: float = 3600
    # Search and get-history do not see writes younger than this, as a lagging index would not.
    read_lag_seconds: float = 0
    artifact_page_size: int = 500
    logged_models: bool = False
    write_sas: bool = True
    # It is not documented whether an archived run is a deleted one to MLflow's part of the service.
    hidden_is_deleted: bool = False
    # Whether storage reaches the accounts that files are to be copied from by URL.
    copy_sources: bool = True
    # Whether the registry takes aliases; the documentation does not say that the service does.
    aliases: bool = True
    # How long it takes to deploy a model, or to take it away, and whether that fails.
    deploy_seconds: float = 0
    deployments_fail: bool = False
    limits: Limits = field(default_factory=Limits)

    def change(self, wanted: dict[str, Any]) -> None:
        """Apply all of a partial document or, when any of it is wrong, none."""
        wanted = dict(wanted)
        new_limits = wanted.pop("limits", {})
        for name, value in wanted.items():
            current = getattr(self, name) if name in self.__dataclass_fields__ else None
            if current is None:
                raise InvalidParameter(f"Unknown setting '{name}'")
            if isinstance(current, bool) != isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidParameter(f"Setting '{name}' has the wrong type")
            if not isinstance(current, bool) and value < 0:
                raise InvalidParameter(f"Setting '{name}' must not be negative")
        if not isinstance(new_limits, dict):
            raise InvalidParameter("'limits' must be an object")
        limits.change(self.limits, new_limits)
        for name, value in wanted.items():
            setattr(self, name, value)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
