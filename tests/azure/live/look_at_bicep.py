"""Reads Bicep files and says which of their properties Azure's own SDK does not know; run in an environment with both.

Arguments: Bicep files. Output: a JSON object, for each file its resources' types, and its problems as text.
"""

import importlib
import json
import sys
import typing
from pathlib import Path

from pycep import BicepParser

# The model of each type's body.
MODELS = {
    "Microsoft.ManagedIdentity/userAssignedIdentities": ("azure.mgmt.msi.models", "Identity"),
    "Microsoft.Storage/storageAccounts": ("azure.mgmt.storage.models", "StorageAccountCreateParameters"),
    "Microsoft.Storage/storageAccounts/blobServices": ("azure.mgmt.storage.models", "BlobServiceProperties"),
    "Microsoft.Storage/storageAccounts/blobServices/containers": ("azure.mgmt.storage.models", "BlobContainer"),
    "Microsoft.Network/virtualNetworks": ("azure.mgmt.network.models", "VirtualNetwork"),
    "Microsoft.Network/privateDnsZones": ("azure.mgmt.privatedns.models", "PrivateZone"),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": ("azure.mgmt.privatedns.models", "VirtualNetworkLink"),
    "Microsoft.DBforPostgreSQL/flexibleServers": ("azure.mgmt.postgresqlflexibleservers.models", "Server"),
    "Microsoft.DBforPostgreSQL/flexibleServers/databases": ("azure.mgmt.postgresqlflexibleservers.models", "Database"),
    "Microsoft.OperationalInsights/workspaces": ("azure.mgmt.loganalytics.models", "Workspace"),
    "Microsoft.App/managedEnvironments": ("azure.mgmt.appcontainers.models", "ManagedEnvironment"),
    "Microsoft.App/containerApps": ("azure.mgmt.appcontainers.models", "ContainerApp"),
    "Microsoft.Authorization/roleAssignments": ("azure.mgmt.authorization.models", "RoleAssignmentCreateParameters"),
}
# Bicep's own words, at the top of a resource.
OF_BICEP = {"name", "parent", "scope", "dependsOn"}
# How the parser writes an expression.
EXPRESSION = {"function", "operator", "loop_type", "property_accessor"}


class Shape:
    """The names that a model has in JSON, and the models below them."""

    def __init__(self, model, module):
        self.module, self.parts = module, {}
        if hasattr(model, "_attribute_map"):  # models as they were generated until 2024
            for place in model._attribute_map.values():
                node = self.parts
                *folders, last = place["key"].replace("\\.", "\0").split(".")
                for folder in folders:
                    node = node.setdefault(folder, {})
                node[last] = place["type"]
            return
        model({})  # fills the table below
        hints = typing.get_type_hints(model, vars(module) | {"_models": module}) if model.__annotations__ else {}
        for name, field in model._attr_to_rest_field.items():
            self.parts[field._rest_name] = hints.get(name)


def model_in(hint, module):
    """The model that a type is about, behind Optional, List and the like; None if there is none."""
    if isinstance(hint, str):
        found = getattr(module, hint.strip("[]").rpartition(".")[2], None)
        return None if found is None or not hasattr(found, "_attribute_map") else found
    if isinstance(hint, type):
        return hint if any(base.__name__ == "Model" for base in hint.mro()) else None
    if typing.get_origin(hint) is dict:
        return None
    return next((found for part in typing.get_args(hint) if (found := model_in(part, module))), None)


def look(value, parts, module, path, problems):
    if isinstance(value, list):
        for each in value:
            look(each, parts, module, path, problems)
        return
    if not isinstance(value, dict) or EXPRESSION & set(value):
        return
    for name, below in value.items():
        if name not in parts:
            problems.append(f"{path}.{name} is unknown; known are {', '.join(sorted(parts))}")
            continue
        inner = parts[name]
        if isinstance(inner, dict):
            look(below, inner, module, f"{path}.{name}", problems)
        elif (model := model_in(inner, module)) is not None:
            look(below, Shape(model, module).parts, module, f"{path}.{name}", problems)


def read(file):
    problems, types = [], []
    parsed = BicepParser().parse(file_path=Path(file))
    for name, resource in parsed["resources"].items():
        types.append(f"{resource['type']}@{resource['api_version']}")
        if resource["existing"]:
            continue
        module_name, model_name = MODELS[resource["type"]]
        module = importlib.import_module(module_name)
        body = {key: value for key, value in resource["config"].items() if key not in OF_BICEP}
        look(body, Shape(getattr(module, model_name), module).parts, module, name, problems)
    return {"types": types, "problems": problems}


if __name__ == "__main__":
    print(json.dumps({file: read(file) for file in sys.argv[1:]}))
