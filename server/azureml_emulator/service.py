"""How an emulated service is put together: a table of routes, one way to say errors."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from azureml_emulator.emulator import Emulator
from azureml_emulator.errors import AzureError, Internal, UnknownRoute

log = logging.getLogger("azureml_emulator")

Handler = Callable[[Emulator, Request], Awaitable[Response]]
RouteRow = tuple[str, str, Handler]
Answer = Callable[[AzureError], Response]


def build_service(emulator: Emulator, rows: Sequence[RouteRow], answer: Answer) -> Starlette:
    """Make one ASGI application of a service's routes."""

    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            try:
                return await handler(emulator, request)
            except AzureError as error:
                return answer(error)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception:
                log.exception("%s %s failed", request.method, request.url.path)
                return answer(Internal("The emulator failed: see its standard error"))

        return handle

    async def unknown(request: Request, _error: Exception) -> Response:
        request.scope["emulator.recorded"].unknown = True
        return answer(UnknownRoute(f"No route for {request.method} {request.url.path}"))

    routes = [Route(path, endpoint(handler), methods=[method]) for method, path, handler in rows]
    app = Starlette(routes=routes, exception_handlers={404: unknown, 405: unknown})
    app.router.redirect_slashes = False
    return app
