"""Without authentication nobody beyond this machine is answered, however the server was started.

`runmirror serve` refuses to listen elsewhere at its start. Another program that runs the application (uvicorn,
gunicorn) listens where it was told to, and the application learns of that with the first request.
"""

from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from runmirror.answers import error_answer
from runmirror.errors import PermissionDenied


class OnlyLoopback:
    """ASGI middleware: looks once at each address that requests arrive at."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._known: set[object] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        if server is not None and server[0] not in self._known:
            if not _is_here(server[0]):
                refusal = PermissionDenied(
                    f"This server has no authentication, so it answers on loopback only and not on {server[0]}: set "
                    "RUNMIRROR_AUTH, or RUNMIRROR_INSECURE_NO_AUTH=true if something in front of it authenticates."
                )
                await error_answer(refusal)(scope, receive, send)
                return
            self._known.add(server[0])
        await self.app(scope, receive, send)


def _is_here(host: str) -> bool:
    """A loopback address, or none at all: a socket in a folder, a test's name."""
    try:
        address = ip_address(host)
    except ValueError:
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
