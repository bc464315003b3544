"""A button of ours, and not of a page elsewhere that makes a visitor's browser press it."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from runmirror.errors import RunmirrorError


class ForeignForm(RunmirrorError):
    code, status = "PERMISSION_DENIED", 403


def same_origin(request: Request) -> None:
    """Raises `ForeignForm`. Browsers say where a form comes from, by a header that pages cannot set.

    Sec-Fetch-Site is only sent to https and to this machine; elsewhere Origin has to name the host that was asked.
    Who says neither is no browser, and has the REST API.
    """
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = urlsplit(request.headers.get("origin", "")).netloc
        trusted = origin != "" and origin == request.headers.get("host")
    else:
        trusted = site == "same-origin"
    if not trusted:
        raise ForeignForm("This is a button of the dashboard at /mirror, and it was not pressed there.")


SameOrigin = Annotated[None, Depends(same_origin)]
