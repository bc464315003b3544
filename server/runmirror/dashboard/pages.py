"""Templates into answers: everything escaped, nothing from elsewhere, no scripts."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from fastapi import Request, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from runmirror.auth.permits import current
from runmirror.dashboard import pictures, words
from runmirror.mirror.overview import web_address

_HEADERS = {"Cache-Control": "no-store"}  # the pages are about now
_POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'"
_FRAMED_BY = {"SAMEORIGIN": "; frame-ancestors 'self'", "DENY": "; frame-ancestors 'none'", "NONE": ""}

_templates = Environment(
    loader=PackageLoader("runmirror.dashboard"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_templates.filters |= {
    "number": words.number, "size": words.size, "span": words.span, "utc": words.utc, "many": words.many,
    "reason": words.reason, "kind": words.kind, "web_address": web_address,
}  # fmt: skip
_templates.globals |= {"ago": words.ago, "bars": pictures.bars}

STATIC = {
    file.name: (file.read_bytes(), media_type)
    for name, media_type in (("style.css", "text/css"), ("icon.svg", "image/svg+xml"))
    for file in [files("runmirror.dashboard") / "files" / name]
}


def page(
    request: Request, template: str, *, depth: int, status: int = 200, headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:  # fmt: skip
    """A page that lies `depth` folders below the root: its links are relative, so any prefix will do."""
    body = _templates.get_template(template).render(root="../" * depth or "./", viewer=current().viewer, **values)
    policy = _POLICY + _FRAMED_BY[request.app.state.settings.x_frame_options]
    told = {**_HEADERS, **(headers or {}), "Content-Security-Policy": policy}
    return Response(body, status, told, media_type="text/html")
