"""Takes secrets out of text that is logged, stored or shown."""

import re

_QUERY = re.compile(r"(https?://[^\s\"'<>?]+)\?[^\s\"'<>]*", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer)\s+[\w\-.~+/]+=*", re.IGNORECASE)
_SIGNATURE = re.compile(r"\b(sig|client_secret|client_assertion|access_token|auth)=[^\s&\"']+", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w\-]+\.[\w\-]+\.[\w\-]*")

LONGEST = 2000


def redact(text: str) -> str:
    """`text` without queries of URLs, tokens and signatures, on one line, fit for a terminal, and not too long."""
    text = _QUERY.sub(r"\1", text.encode("utf-8", "replace").decode())
    text = _JWT.sub("…", _SIGNATURE.sub(r"\1=…", _BEARER.sub(r"\1 …", text)))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
