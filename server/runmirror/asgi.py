"""The factory uvicorn calls in each API process: everything comes from the environment that `serve` prepared."""

import gc
import logging
from typing import TYPE_CHECKING

from runmirror import logs
from runmirror.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

_LARGEST_FREED = 4 * 1024**2
_YOUNG = 20_000  # objects that may be new before anybody looks which of them are garbage


def create() -> "FastAPI":
    settings = Settings()
    if settings.database_url is None:
        raise RuntimeError("no database: start with `runmirror serve`, or set RUNMIRROR_DATABASE_URL")
    _keep_what_is_freed()
    logs.configure(settings.log_format, logging.INFO if settings.access_log else logging.WARNING)
    # What is made until here stays for good: to look for garbage in it meanwhile takes a sixth of the start.
    gc.disable()
    try:
        from runmirror.app import create_app  # noqa: PLC0415 - as said

        app = create_app(settings, settings.database_url)
        gc.freeze()  # and no collection need look at it later
        # Requests leave next to no cycles behind: to look for them after each dozen takes a twentieth of the time.
        gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    finally:
        gc.enable()
    return app


def _keep_what_is_freed() -> None:
    """Have glibc give memory back to the kernel when 8 MiB of it are free, not half a megabyte.

    Else each part of a large upload begins with page faults, a sixth of its cost. It sets that bound to twice the
    largest block that it has seen freed (M_TRIM_THRESHOLD in mallopt(3)); of this one no page is ever touched.
    """
    bytes(_LARGEST_FREED)
