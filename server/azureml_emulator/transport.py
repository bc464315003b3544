"""Lets a request handler reach its own connection, which ASGI hides and resets need."""

import asyncio

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol


class ReachableProtocol(H11Protocol):
    """HTTP/1.1 whose requests carry their transport in the scope's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


def transport_of(scope: Scope) -> asyncio.Transport:
    """The connection that a request came by."""
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport
