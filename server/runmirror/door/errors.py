"""How the door refuses: each error names what was refused and the setting that admits it."""

import re

from runmirror.errors import BadRequest, RunmirrorError

_UNPRINTABLE = re.compile(r"[^A-Za-z0-9.:/_\-\[\]]")


class Refused(RunmirrorError):
    code, status = "PERMISSION_DENIED", 403


class HostRefused(Refused):
    def __init__(self, host: str) -> None:
        super().__init__(
            f"Invalid Host header: '{_shown(host)}' is not a name of this server. If it is one, add it to "
            "RUNMIRROR_ALLOWED_HOSTS (--allowed-hosts)."
        )


class OriginRefused(Refused):
    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Cross-origin request blocked: pages of '{_shown(origin)}' may not call this server. If they should, add "
            "the origin to RUNMIRROR_CORS_ALLOWED_ORIGINS (--cors-allowed-origins)."
        )


class TooManyHeaders(BadRequest):
    status = 431


class AddressTooLong(BadRequest):
    status = 414


class HeadTooLong(BadRequest):
    status = 431

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The head of a request has at most {limit_bytes} bytes.")


class TooSlow(RunmirrorError):
    """Nothing was done; a client may come again, and MLflow's does."""

    code, status = "REQUEST_TIMEOUT", 408

    def __init__(self) -> None:
        super().__init__("The request came too slowly (RUNMIRROR_CLIENT_TIMEOUT); nothing was done.")


def _shown(text: str) -> str:
    """As much of it as a host or origin can be, and nothing that a page or a log would read otherwise."""
    return _UNPRINTABLE.sub("?", text[:200])
