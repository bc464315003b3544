"""Scripts that other systems run at their start, so that what they run logs to this server."""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

_HERE = Path(__file__).parent
# What needs no quoting anywhere: shells and files of variables disagree about quotes.
_PLAIN = re.compile(r"https?://[\w.\-:\[\]/~%]+")
_PACKAGE = re.compile(r"[\w.\-/\[\]=<>~,:@+]+")


def databricks(tracking_uri: str, package: str) -> str:
    """For a cluster of Azure Databricks. Raises `ValueError` for what is no address of a server, or no package."""
    parts = urlsplit(tracking_uri)
    if not _PLAIN.fullmatch(tracking_uri) or not parts.hostname or parts.username:
        raise ValueError(f"{tracking_uri!r} is not the address of a server (https://…)")
    if not _PACKAGE.fullmatch(package) or package.startswith("-"):
        raise ValueError(f"{package!r} is neither a package nor the path of a wheel")
    script = (_HERE / "databricks.sh").read_text(encoding="utf-8")
    given = {"@TRACKING_URI@": tracking_uri.rstrip("/"), "@PACKAGE@": package}
    for place, value in given.items():
        script = script.replace(place, shlex.quote(value))
    return script
