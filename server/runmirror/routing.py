"""How a route is declared: one handler, its permission, and MLflow's twin paths.

MLflow serves every endpoint under `/api` (clients) and `/ajax-api` (its UI). A route that declares no permission
stops the start of the server: see `check_permissions`.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Permission(StrEnum):
    """What a caller must be allowed to do."""

    PUBLIC = "public"  # probes and capabilities: no identity needed
    READ = "read"
    EDIT = "edit"
    MANAGE = "manage"


def route(
    router: APIRouter, method: str, path: str, *, permission: Permission, twins: bool = False, **options: Any
) -> Callable[[Handler], Handler]:
    """Register `path` for `method`; with `twins`, `path` starts with /api and is served under /ajax-api too."""

    def register(handler: Handler) -> Handler:
        name = handler.__name__
        version = "_v3" if "/3.0/" in path else ""  # some handlers serve two versions of MLflow's API
        extra = {"x-permission": permission.value}
        router.add_api_route(
            path, handler, methods=[method], name=name, operation_id=f"{name}_{method.lower()}{version}",
            openapi_extra=extra, **options,
        )  # fmt: skip
        if twins:
            ajax = path.replace("/api/", "/ajax-api/", 1)
            router.add_api_route(
                ajax, handler, methods=[method], name=name, include_in_schema=False, openapi_extra=extra, **options
            )
        return handler

    return register


def mlflow_route(
    router: APIRouter, method: str, path: str, *, permission: Permission, version: str = "2.0", **options: Any
) -> Callable[[Handler], Handler]:
    """Register an endpoint of MLflow's REST API: `path` as its documentation writes it, e.g. `/runs/create`."""
    options.setdefault("response_model_exclude_none", True)
    return route(router, method, f"/api/{version}/mlflow{path}", permission=permission, twins=True, **options)


def routes_of(app: FastAPI) -> Iterator[RouteContext]:
    """Every API route of the app, those of included routers too."""
    return (context for context in iter_route_contexts(app.routes) if isinstance(context.original_route, APIRoute))


def check_permissions(app: FastAPI) -> None:
    """Deny by default: raise when any route does not say who may call it."""
    for context in routes_of(app):
        if "x-permission" not in (context.openapi_extra or {}):
            raise RuntimeError(f"route {context.path} declares no permission")
