"""Log lines for people, or a JSON object each for programs; both say which request a line is about."""

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

# Of the request that is being answered; every task of a request inherits it.
request_id: ContextVar[str] = ContextVar("request_id", default="")

_NOISY = ("azure", "httpx")


def configure(log_format: Literal["text", "json"], level: int) -> None:
    """What this process and its libraries log goes to standard error; nothing of what clients send is among it."""
    logging.basicConfig(level=level, handlers=[lines(log_format, sys.stderr)], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def lines(log_format: Literal["text", "json"], stream: TextIO) -> logging.Handler:
    """What writes each record to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    return handler


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"{line} [{told}]" if (told := request_id.get()) else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if told := request_id.get():
            line["request_id"] = told
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)
