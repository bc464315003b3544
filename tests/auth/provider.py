"""An OpenID Connect provider on loopback: gives out tokens, signs browsers in, changes its keys and goes away."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

AUDIENCE = "api://runmirror-test"
CLIENT = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "s%ecr et/+:"


@dataclass
class Provider:
    """`asked` counts what it was asked for; `person` are the claims of who sits at the browser, None refuses."""

    url: str = ""
    keys: dict[str, RSAPrivateKey] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_up: bool = True
    calls_itself: str = ""
    person: dict[str, Any] | None = field(default_factory=lambda: {"oid": "0f0e0d"})
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: tuple[str, ...] = ("http://localhost/signin/callback",)  # which the application is registered with
    lies: dict[str, Any] = field(default_factory=dict)  # claims of ID tokens that are not as they should be
    secret: str = CLIENT_SECRET

    def new_key(self, kid: str) -> None:
        self.keys = {**self.keys, kid: generate_private_key(public_exponent=65537, key_size=2048)}

    def answer(self, path: str) -> dict[str, Any] | None:
        self.asked.append(path)
        if not self.is_up:
            return None
        if path == "/keys":
            members = [
                {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}
                for kid, key in self.keys.items()
            ]
            return {"keys": members}
        return {
            "issuer": self.calls_itself or self.url, "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize?p=1", "token_endpoint": f"{self.url}/token",
        }  # fmt: skip

    def token(self, kid: str = "first", *, key: RSAPrivateKey | None = None, **claims: Any) -> str:
        told = {
            "iss": self.url, "aud": AUDIENCE, "sub": "subject", "oid": "0f0e0d", "exp": int(time.time()) + 600,
            "preferred_username": "ann@example.org", **claims,
        }  # fmt: skip
        told = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(told, key or self.keys[kid], algorithm="RS256", headers={"kid": kid})

    def authorize(self, query: str) -> str:
        """Where the browser is sent: the person says yes at once. Raises `ValueError` for what no provider takes."""
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if asked.get("client_id") != CLIENT or asked.get("redirect_uri") not in self.redirects:
            raise ValueError("an unknown client or redirect")
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256" or "p" not in asked:
            raise ValueError("no code flow with PKCE")
        if "openid" not in asked["scope"].split() or not asked.get("nonce") or not asked.get("state"):
            raise ValueError("no OpenID Connect")
        if self.person is None:
            told = {"error": "access_denied", "error_description": "<script>alert(1)</script>"}
        else:
            told = {"code": secrets.token_urlsafe(16)}
            self.codes[told["code"]] = asked
        return f"{asked['redirect_uri']}?{urlencode({**told, 'state': asked['state']})}"

    def redeem(self, authorization: str, form: dict[str, str]) -> dict[str, Any]:
        """Tokens for a code, once. Raises `ValueError` unless all is as it was when the code was asked for."""
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        told = dict(parse_qsl(f"n={name}&s={secret}")) if authorization else {"n": form["client_id"]}
        if told != {"n": CLIENT, **({"s": self.secret} if self.secret else {})}:
            raise ValueError("not the client")
        asked = self.codes.pop(form["code"], None)
        if asked is None or form["grant_type"] != "authorization_code":
            raise ValueError("no such code, or one that was used")
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            raise ValueError("not the verifier")
        if form["redirect_uri"] != asked["redirect_uri"]:
            raise ValueError("another redirect")
        claims = {"aud": CLIENT, "nonce": asked["nonce"], **(self.person or {}), **self.lies}
        return {"token_type": "Bearer", "id_token": self.token(**claims), "access_token": "opaque"}


@contextmanager
def running() -> Iterator[Provider]:
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                try:
                    place = made.authorize(parts.query)
                except ValueError as error:
                    self._say(400, {"error": str(error)})
                    return
                self.send_response(302)
                self.send_header("Location", place)
                self.end_headers()
                return
            told = made.answer(self.path)
            self._say(200 if told is not None else 503, told)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            made.asked.append(self.path)
            if not made.is_up:
                self._say(503, {})
                return
            try:
                self._say(200, made.redeem(self.headers.get("Authorization", ""), dict(parse_qsl(body))))
            except (ValueError, KeyError) as error:
                self._say(400, {"error": "invalid_grant", "error_description": str(error)})

        def _say(self, status: int, told: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    made.new_key("first")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
