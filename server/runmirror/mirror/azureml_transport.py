"""Requests over aiohttp, which takes a third of httpx's time for one: the worker does little else than this.

What every outgoing client of ours honours holds here too: `HTTPS_PROXY`, `NO_PROXY`, and the settings' CA bundle.
"""

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from runmirror import __version__
from runmirror.mirror.redact import redact
from runmirror.mirror.target import Guard, TargetUnavailable
from runmirror.settings import Settings
from runmirror.telemetry.spans import span

# What a URL may hold as it is; a signed one must arrive as it was signed.
_OF_URLS = "%/:?#[]@!$&'()*+,;=~"
_LARGE = 2**20
# The request never left: no connection, or the proxy refused.
_NOT_SENT = (
    aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end; the names of its headers are known in any case.

    With it comes what it answers: what was `sent`, or None if that was streamed, and the MD5 that was told of it.
    """

    method: str
    path: str
    status_code: int
    reason_phrase: str
    headers: Mapping[str, str]
    content: bytes
    sent: bytes | None = b""
    sent_md5: str | None = None

    @property
    def is_success(self) -> bool:
        return 200 <= self.status_code < 300

    def json(self) -> Any:
        """Raises `ValueError`."""
        return json.loads(self.content)


class Transport:
    """Connections, shared by all runs of a worker; `total_s` bounds a request as a whole."""

    def __init__(self, settings: Settings) -> None:
        self._total_s = settings.mirror_timeout.total_seconds()
        self._tls = ssl.create_default_context(cafile=settings.ca_bundle)
        self._most = settings.mirror_concurrency * (1 + settings.mirror_artifact_concurrency)
        self._proxies: dict[str, str | None] = {}
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
        has_effect: bool,
        guard: Guard = lambda: None,
    ) -> Answer:
        """Raises `TargetUnavailable`; `has_effect`: then nobody knows whether a request without an answer arrived.

        `guard` is asked first, and again in the moment in which the bytes of a body leave: a process can be stopped
        for longer than a lease lasts while its connection is being made. What it raises is raised, and nothing is sent.
        """
        guard()
        place = f"{method} {url.partition('?')[0]}"
        if params:
            url = f"{url}?{urlencode(params, quote_via=quote)}"
        sent = b"" if content is None else content if isinstance(content, bytes) else None
        body = None if content is None else _Body(content, guard)
        at = urlsplit(url)
        told = {"http.request.method": method, "server.address": at.hostname or "", "url.path": at.path}
        try:
            with span(method, told, is_call=True) as tell:
                async with asyncio.timeout(self._total_s):
                    # A redirect would take the token along.
                    async with self._session.request(
                        method, URL(quote(url, safe=_OF_URLS), encoded=True), headers=headers,
                        data=None if body is None else body.as_data(), proxy=self._proxy(url), allow_redirects=False,
                    ) as answer:  # fmt: skip
                        read = await answer.read()
                        tell("http.response.status_code", answer.status)
                        return Answer(
                            method, at.path, answer.status, answer.reason or "", answer.headers, read,
                            sent=sent, sent_md5=answer.request_info.headers.get("Content-MD5"),
                        )  # fmt: skip
        except _NOT_SENT as error:
            raise TargetUnavailable(f"{place}: {_told(error)}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if body is not None and body.error is not None:
                raise body.error from None
            raise TargetUnavailable(f"{place}: no answer ({_told(error)})", uncertain=has_effect) from None

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made where a loop runs."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._most, ssl=self._tls, ttl_dns_cache=30),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"runmirror/{__version__}"},
                skip_auto_headers=("Content-Type",),
            )
            # A request is sent once: whether it may be repeated is decided elsewhere, and a streamed body is used up.
            self._opened._retry_connection = False
        return self._opened

    def _proxy(self, url: str) -> str | None:
        """The proxy for a URL by the environment; asked once a host."""
        host = urlsplit(url).netloc
        if host not in self._proxies:
            proxies = getproxies()
            proxy = proxies.get("https") or proxies.get("all")
            if proxy is not None and "://" not in proxy:
                proxy = f"http://{proxy}"
            if proxy is not None and not proxy.startswith(("http://", "https://")):
                raise TargetUnavailable(f"the proxy for {host} is neither an http:// nor an https:// one")
            self._proxies[host] = None if proxy is None or proxy_bypass(host) else proxy
        return self._proxies[host]


class _Body:
    """A body on its way; what goes wrong at its source is not the connection's fault, as aiohttp would have it."""

    def __init__(self, content: bytes | AsyncIterator[bytes], guard: Guard) -> None:
        self._content = content
        self._guard = guard
        self.error: Exception | None = None

    def as_data(self) -> Any:
        """Bytes leave in one piece with the headers, unless they are many: aiohttp sends a file in parts."""
        if not isinstance(self._content, bytes):
            return self._parts(self._content)
        return io.BytesIO(self._content) if len(self._content) >= _LARGE else _Guarded(self._content, self)

    def check(self) -> None:
        try:
            self._guard()
        except Exception as error:
            self.error = error
            raise

    async def _parts(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            self.error = error
            raise


class _Guarded(aiohttp.BytesPayload):
    """Bytes that are not sent once the guard says no."""

    def __init__(self, content: bytes, body: _Body) -> None:
        super().__init__(content)
        self._body = body

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._body.check()
        await super().write_with_length(writer, content_length)


def _told(error: Exception) -> str:
    return redact(str(error)) or type(error).__name__
