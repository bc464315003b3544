"""The factory uvicorn calls in each API process: everything comes from the environment that `serve` prepared."""

import gc
import logging

from fastapi import FastAPI

from runmirror import logs
from runmirror.app import create_app
from runmirror.settings import Settings


def create() -> FastAPI:
    settings = Settings()
    if settings.database_url is None:
        raise RuntimeError("no database: start with `runmirror serve`, or set RUNMIRROR_DATABASE_URL")
    logs.configure(settings.log_format, logging.INFO if settings.access_log else logging.WARNING)
    app = create_app(settings, settings.database_url)
    gc.freeze()  # what was made until here stays for good: no collection need look at it again
    return app
