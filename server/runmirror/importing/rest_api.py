"""MLflow's REST API as a client of it: signed, patient, by pages."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from runmirror.importing.source import SourceError
from runmirror.mirror.redact import redact
from runmirror.retry_after import retry_after_s

Json = dict[str, Any]
Params = Mapping[str, str | int | list[str]]
Sign = Callable[[], Awaitable[Mapping[str, str]]]

_ATTEMPTS = 6
_TIMEOUT_S = 120.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONNECTIONS = 32


class NoAnswer(SourceError):
    """The source said no, with this HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RestApi:
    """Every call may be repeated: all of them only read."""

    def __init__(self, base: str, sign: Sign, *, trust: Any = True) -> None:
        self._base = base.rstrip("/")
        self._sign = sign
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, verify=trust, limits=limits)

    async def close(self) -> None:
        await self._client.aclose()

    async def get(self, path: str, params: Params | None = None) -> Json:
        return await self._call("GET", path, params=params)

    async def post(self, path: str, body: Json) -> Json:
        return await self._call("POST", path, body=body)

    async def pages(self, path: str, body: Json, *, method: str = "POST") -> AsyncIterator[Json]:
        """Answer after answer, as long as there is a `next_page_token`."""
        token = ""
        while True:
            asked = body | ({"page_token": token} if token else {})
            answer = await (self.post(path, asked) if method == "POST" else self.get(path, asked))
            yield answer
            token = str(answer.get("next_page_token") or "")
            if not token:
                return

    async def read(self, path: str, params: Params) -> AsyncIterator[bytes]:
        """The bytes of an answer, as they come."""
        async with self._opened("GET", path, params=params) as answer:
            try:
                async for chunk in answer.aiter_bytes(1 << 20):
                    yield chunk
            except httpx.HTTPError as error:
                raise SourceError(f"{path}: broke off: {type(error).__name__}") from error

    async def _call(self, method: str, path: str, *, params: Params | None = None, body: Json | None = None) -> Json:
        async with self._opened(method, path, params=params, body=body) as answer:
            content = await answer.aread()
        try:
            found = json.loads(content) if content else {}
        except ValueError as error:
            raise SourceError(f"{path}: the answer is no JSON: is this an MLflow server?") from error
        if not isinstance(found, dict):
            raise SourceError(f"{path}: the answer is no JSON object")
        return found

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, *, params: Params | None = None, body: Json | None = None
    ) -> AsyncIterator[httpx.Response]:
        answer = await self._send(method, path, params, body)
        try:
            yield answer
        finally:
            await answer.aclose()

    async def _send(self, method: str, path: str, params: Params | None, body: Json | None) -> httpx.Response:
        for attempt in range(1, _ATTEMPTS + 1):
            wait_s = float(2**attempt) / 4
            try:
                headers = dict(await self._sign())
                request = self._client.build_request(
                    method, f"{self._base}/{path}", params=params, json=body, headers=headers
                )  # fmt: skip
                answer = await self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS:
                    raise SourceError(f"{self._host} cannot be reached: {redact(str(error))}") from error
            else:
                if answer.is_success:
                    return answer
                try:
                    told = _told(await answer.aread())
                except httpx.HTTPError:
                    told = "no answer"
                await answer.aclose()
                if answer.status_code not in _AGAIN or attempt == _ATTEMPTS:
                    raise NoAnswer(f"{path}: HTTP {answer.status_code}: {told}", answer.status_code)
                wait_s = retry_after_s(answer) or wait_s
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable")

    @property
    def _host(self) -> str:
        return urlsplit(self._base).netloc.rpartition("@")[2]


def _told(content: bytes) -> str:
    try:
        found = json.loads(content)
        return redact(str(found.get("message") or found.get("error_code") or found))[:300]
    except (ValueError, AttributeError):
        return redact(content[:200].decode(errors="replace"))
