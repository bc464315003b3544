"""Who the emulated workspace is: its ids, its hosts and the addresses it hands out."""

import re
import uuid
from dataclasses import dataclass, field

ARM_HOST = "management.azure.com"
LOGIN_HOST = "login.microsoftonline.com"
STUDIO_HOST = "ml.azure.com"


def new_guid() -> str:
    """Name a thing the way Azure does."""
    return str(uuid.uuid4())


@dataclass(frozen=True)
class Workspace:
    """One workspace, its region, its storage account and the service principal that may use it."""

    subscription: str = "00000000-0000-4000-8000-000000000001"
    resource_group: str = "emulated"
    name: str = "workspace"
    region: str = "eastus"
    tenant_id: str = "00000000-0000-4000-8000-000000000002"
    client_id: str = "00000000-0000-4000-8000-000000000003"
    client_secret: str = field(default_factory=new_guid, repr=False)
    # Fresh at every start: azureml-core caches discovery answers for ever under this id.
    guid: str = field(default_factory=new_guid)

    @property
    def arm_id(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}"
        )

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}/providers"

    @property
    def account(self) -> str:
        """Storage account names are 3 to 24 lower-case letters and digits."""
        return (re.sub(r"[^a-z0-9]", "", self.name.lower()) + "storage")[:24]

    @property
    def api_host(self) -> str:
        return f"{self.region}.api.azureml.ms"

    @property
    def blob_host(self) -> str:
        return f"{self.account}.blob.core.windows.net"

    @property
    def hosts(self) -> tuple[str, ...]:
        return (ARM_HOST, LOGIN_HOST, self.api_host, self.blob_host, STUDIO_HOST)

    @property
    def api_url(self) -> str:
        return f"https://{self.api_host}"

    @property
    def studio_url(self) -> str:
        return f"https://{STUDIO_HOST}"

    @property
    def tracking_uri(self) -> str:
        """The URI as ARM reports it: still v1.0, although every client writes v2.0 into its requests."""
        return f"azureml://{self.api_host}/mlflow/v1.0{self.arm_id}"

    @property
    def discovery_url(self) -> str:
        return f"{self.api_url}/discovery"

    def artifact_uri(self, experiment_id: str, run_id: str) -> str:
        run = f"experiments/{experiment_id}/runs/{run_id}/artifacts"
        return f"azureml://{self.api_host}/mlflow/v2.0{self.arm_id}/{run}"
