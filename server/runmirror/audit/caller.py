"""Who asks, as far as this process knows: whoever finds out more says so here."""

import getpass
from contextvars import ContextVar

# Of the request that is answered: its address, or the name of who was recognised.
caller: ContextVar[str] = ContextVar("caller", default="")


def the_caller() -> str:
    """Without a request it is who started the command."""
    return caller.get() or f"command line ({_user()})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name, as containers have
        return "unknown"
