"""Prints, as JSON, every route of the installed `mlflow server`: a program of its own, since importing it warns."""

import json
import sys

from fastapi.routing import iter_route_contexts
from mlflow.server import app as flask_app
from mlflow.server.fastapi_app import app as fastapi_app
from mlflow.server.handlers import get_endpoints

AUTOMATIC = {"HEAD", "OPTIONS"}


def main() -> None:
    """Protobuf services, Flask's rules and FastAPI's routers: `[[method, path], …]`."""
    found = {(method, path) for path, _, methods in get_endpoints() for method in methods}
    found |= {(method, str(rule)) for rule in flask_app.url_map.iter_rules() for method in rule.methods or ()}
    for context in iter_route_contexts(fastapi_app.routes):
        found |= {(method, str(context.path)) for method in getattr(context.original_route, "methods", None) or ()}
    json.dump(sorted(endpoint for endpoint in found if endpoint[0] not in AUTOMATIC), sys.stdout)


if __name__ == "__main__":
    main()
