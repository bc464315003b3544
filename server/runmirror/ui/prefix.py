"""Everything below a path: for a proxy that hands on /mlflow/… to us as it came."""

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import EndpointNotFound

_PROBES = {"/health", "/version", "/livez", "/readyz", "/metrics"}  # an orchestrator asks the port, not the proxy


class StaticPrefix:
    """ASGI middleware: takes `prefix` ("/mlflow") off every path; what is not below it does not exist, but probes."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self.app(scope, receive, send)
        elif scope["path"].startswith(self.prefix + "/"):
            self._take_off(scope)
            await self.app(scope, receive, send)
        elif scope["path"] == self.prefix:  # the pages' own addresses are relative, so the slash matters
            await RedirectResponse(self.prefix + "/", status_code=308)(scope, receive, send)
        else:
            await error_answer(EndpointNotFound(f"Everything here lies below {self.prefix}/"))(scope, receive, send)

    def _take_off(self, scope: Scope) -> None:
        """From this scope, not from a copy: who counts requests outside of us reads there which route it was."""
        scope["path"] = scope["path"].removeprefix(self.prefix)
        if scope.get("raw_path"):
            scope["raw_path"] = scope["raw_path"].removeprefix(self.prefix.encode())
