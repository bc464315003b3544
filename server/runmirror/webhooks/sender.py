"""One request to a webhook, signed as MLflow signs it: to the checked address, without redirects or proxies."""

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import httpx

from runmirror import __version__
from runmirror.errors import RunmirrorError
from runmirror.retry_after import retry_after_s
from runmirror.settings import Settings
from runmirror.webhooks.guard import Forbidden, Guard
from runmirror.webhooks.secrets import Secrets, UnreadableSecret

MOST_BODY_BYTES = 4096  # what is read of an answer, and shown when a webhook is tested
_BODY_S = 5.0


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    body: str
    retry_after_s: float | None = None

    @property
    def success(self) -> bool:
        """A redirect is none: it is not followed, so nobody there was told."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class NotAnswered:
    """`for_good`: trying again does not help, and nothing was sent."""

    reason: str
    for_good: bool = False


class Sender:
    """Sends to webhooks; shared by deliveries and tests.

    Proxies of the environment are not used: the address that was checked would be the proxy's to choose.
    """

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        self.secrets = Secrets(settings.webhook_secret_key)
        self.guard = guard or Guard(
            settings.webhook_allowed_schemes, allow_private=settings.webhook_allow_private
        )  # fmt: skip
        self.tests = asyncio.Semaphore(settings.webhook_concurrency)  # deliveries have their own bound
        self._total_s = settings.webhook_timeout.total_seconds()
        self._ca_bundle = settings.ca_bundle

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        """Made when the first webhook is sent to: reading the system's authorities takes a while."""
        return httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=self._ca_bundle),
            trust_env=False,
            follow_redirects=False,
            timeout=self._total_s,
            # A connection is of one webhook's name and checked address; it is not kept for another's.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            headers={"User-Agent": f"runmirror/{__version__}", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        if "_http" in self.__dict__:
            await self._http.aclose()
        self.guard.close()

    async def send(self, url: str, secret: str | None, delivery_id: UUID, body: str) -> Answered | NotAnswered:
        """Post `body`, within `webhook_timeout` in all; `secret` as it is stored."""
        try:
            headers = self._headers(secret, delivery_id, body)
            async with asyncio.timeout(self._total_s):
                parsed = self.guard.parse(url)
                addresses = await self.guard.addresses(parsed)
                return await self._post(parsed, addresses, headers, body.encode())
        except (Forbidden, UnreadableSecret) as error:
            return NotAnswered(str(error), for_good=True)
        except RunmirrorError as error:
            return NotAnswered(error.message)
        except TimeoutError:
            return NotAnswered(f"no answer within {self._total_s:g} s")
        except httpx.TransportError as error:
            return NotAnswered(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)

    def _headers(self, secret: str | None, delivery_id: UUID, body: str) -> dict[str, str]:
        now_s = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": str(delivery_id),
            "X-MLflow-Timestamp": now_s,
        }
        if secret is not None:
            signed = f"{delivery_id}.{now_s}.{body}".encode()
            digest = hmac.new(self.secrets.decrypt(secret).encode(), signed, hashlib.sha256).digest()
            headers["X-MLflow-Signature"] = "v1," + base64.b64encode(digest).decode()
        return headers

    async def _post(
        self, url: httpx.URL, addresses: list[str], headers: dict[str, str], content: bytes
    ) -> Answered:  # fmt: skip
        """To the first address that takes a connection; certificate and Host are those of the name."""
        headers = {**headers, "Host": url.netloc.decode("ascii")}
        name = {"sni_hostname": url.raw_host.decode("ascii")}
        *others, last = addresses
        for address in others:
            try:
                return await self._post_to(url.copy_with(host=address), name, headers, content)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing was sent
        return await self._post_to(url.copy_with(host=last), name, headers, content)

    async def _post_to(
        self, url: httpx.URL, name: dict[str, str], headers: dict[str, str], content: bytes
    ) -> Answered:  # fmt: skip
        async with self._http.stream("POST", url, headers=headers, content=content, extensions=name) as answer:
            read = bytearray()
            # The status has come: what is wrong with the rest is no reason to send again.
            with suppress(TimeoutError, httpx.TransportError):
                async with asyncio.timeout(_BODY_S):
                    async for piece in answer.aiter_raw():  # as sent: nothing is unpacked
                        read += piece
                        if len(read) >= MOST_BODY_BYTES:
                            break
            text = bytes(read[:MOST_BODY_BYTES]).decode("utf-8", "replace")
            return Answered(answer.status_code, text, retry_after_s(answer))
