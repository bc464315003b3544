"""What is secret of an identity: tokens, of which only a hash is kept, and passwords, which are hashed slowly."""

import hashlib
import hmac
import re
import secrets

_TOKEN = re.compile(r"rmt_[A-Za-z0-9_-]{43}")
_SESSION = re.compile(r"rms_[A-Za-z0-9_-]{43}")
_SHOWN = 12  # characters of a token that are kept, for people to tell tokens apart

# 16 MiB and some 50 ms for one guess.
_N, _R, _P = 2**14, 8, 1


def new_token() -> str:
    """256 random bits, and letters in front by which a scanner for secrets knows one of ours."""
    return "rmt_" + secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def new_session() -> str:
    """As much chance as in a token, and other letters: neither can be taken for the other."""
    return "rms_" + secrets.token_urlsafe(32)


def is_session(text: str) -> bool:
    return _SESSION.fullmatch(text) is not None


def prefix(token: str) -> str:
    return token[:_SHOWN]


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${salt.hex()}${_scrypt(password, salt, _N, _R, _P).hex()}"


def password_fits(password: str, kept: str) -> bool:
    """Takes as long as the hash was made to take: call it in a thread."""
    _, n, r, p, salt, expected = kept.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p)).hex(), expected)


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=n, r=r, p=p, maxmem=2**26, dklen=32)
