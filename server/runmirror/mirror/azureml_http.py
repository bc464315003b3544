"""One HTTP client for Azure ML and its blobs: tokens in, errors of `runmirror.mirror.target` out."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from runmirror.mirror.azureml_transport import Answer, Transport
from runmirror.mirror.credentials import Tokens
from runmirror.mirror.pace import Pace
from runmirror.mirror.redact import redact
from runmirror.mirror.target import (
    Guard,
    TargetError,
    TargetRejected,
    TargetThrottled,
    TargetUnauthorized,
    TargetUnavailable,
)
from runmirror.retry_after import retry_after_s
from runmirror.settings import Settings

Json = dict[str, Any]

BLOB_SUFFIXES = (
    ".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net", ".blob.storage.azure.net",
)  # fmt: skip
_NO_REFUSALS = frozenset({401, 403, 408, 425, 429})  # 4xx that are no fault of what was sent
_LONGEST_ID = 100


class Refused(TargetRejected):
    """A 4xx; `code` is the service's word for it."""

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    @property
    def is_absent(self) -> bool:
        return self.status == 404


class AzureClient:
    """Connections to one workspace's services, shared by all runs of a worker.

    `mirror_timeout` bounds a request as a whole, so that a lease that outlives it outlives the request.
    """

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        self._tokens = tokens
        self._pace = Pace()
        self._transport = Transport(settings)

    async def close(self) -> None:
        await self._transport.close()

    async def call(
        self,
        guard: Guard,
        method: str,
        url: str,
        *,
        body: Json | None = None,
        params: Mapping[str, str | int] | None = None,
        has_effect: bool = False,
    ) -> Json:
        """Ask a service: its JSON object. `has_effect`: sent twice it would do something twice."""
        answer = await self.ask(guard, method, url, body=body, params=params, has_effect=has_effect)
        return json_object(answer, has_effect=has_effect)

    async def token(self) -> str:
        """For a program of Azure ML's own that this process starts."""
        return await self._tokens.get()

    async def ask(
        self,
        guard: Guard,
        method: str,
        url: str,
        *,
        body: Json | None = None,
        params: Mapping[str, str | int] | None = None,
        has_effect: bool = False,
    ) -> Answer:
        """As `call`: a success with its headers, whatever its body is."""
        content = None if body is None else _written(body)
        headers = {} if content is None else {"Content-Type": "application/json"}

        async def send(token: str) -> Answer:
            signed = {**headers, "Authorization": f"Bearer {token}"}
            await self._pace.turn()
            answer = await self._transport.send(
                method, url, headers=signed, params=params, content=content, has_effect=has_effect, guard=guard
            )
            self._pace.heard(answer.status_code)
            return answer

        token = await self._tokens.get()
        answer = await send(token)
        if answer.status_code == 401:
            answer = await send(await self._tokens.replace(token))
        if answer.is_success:
            return answer
        raise error_for(answer, has_effect=has_effect)

    async def blob(
        self,
        guard: Guard,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Ask Blob storage, by a URL that is its own credential; a credential that is refused is `Refused` too."""
        host = urlsplit(url).hostname or ""
        if not url.startswith("https://") or not host.endswith(BLOB_SUFFIXES):
            raise TargetUnavailable(f"the artifact service named the host {host!r}, which is not Azure Blob storage")
        signed = {"x-ms-version": "2021-08-06", **(headers or {})}
        answer = await self._transport.send(
            method, url, headers=signed, content=content, has_effect=False, guard=guard
        )  # fmt: skip
        if answer.is_success:
            return answer
        if answer.status_code in {401, 403}:
            code, text = _explain(answer)
            raise Refused(text, status=answer.status_code, code=code)
        raise error_for(answer, has_effect=False)


def json_object(answer: Answer, *, has_effect: bool) -> Json:
    """A JSON object; an empty body is an empty one."""
    try:
        found = answer.json() if answer.content else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        text = f"{answer.method} {answer.path}: the answer is not a JSON object"
        raise TargetUnavailable(text, uncertain=has_effect)
    return found


def error_for(answer: Answer, *, has_effect: bool) -> TargetError:
    """What an answer that is no success means."""
    status = answer.status_code
    code, text = _explain(answer)
    wait = retry_after_s(answer)
    if status == 429 or (status == 503 and wait is not None):
        return TargetThrottled(text, retry_after_s=wait)
    if status in {401, 403}:
        return TargetUnauthorized(text)
    if status in {408, 425} or status >= 500 or status < 400:
        return TargetUnavailable(text, retry_after_s=wait, uncertain=has_effect)
    return Refused(text, status=status, code=code)


def _explain(answer: Answer) -> tuple[str, str]:
    """Code and message of an error, in whichever of Azure's shapes it is told."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    error = body.get("Error") or body.get("error")
    error = error if isinstance(error, dict) else {}
    code = body.get("error_code") or error.get("Code") or error.get("code") or answer.headers.get("x-ms-error-code")
    message = error.get("Message") or error.get("message") or body.get("message") or answer.reason_phrase
    place = f"{answer.method} {answer.path.rpartition('/workspaces/')[2]}"
    facts = [f"HTTP {answer.status_code} to {place}"]
    facts += [f"request id {request_id}"] if (request_id := _request_id(body, answer.headers)) else []
    facts += [f"payload {digest}"] if (digest := _payload_digest(answer)) else []
    # Apart from each other: however long the message is, the rest must not be cut off.
    told = redact(f"{code or 'error'}: {message}")
    return str(code or ""), f"{told} ({redact(', '.join(facts))})"


def facts_of(told: Json, body: Json) -> str:
    """Of a refusal inside an answer: by which request and of what, to stand behind its message."""
    request_id = _request_id(told, {})
    return (f", request id {request_id}" if request_id else "") + f", payload {_digest(_written(body))}"


def _request_id(body: Json, headers: Mapping[str, str]) -> str | None:
    """By what Azure's support finds the request again; each of its services tells it elsewhere."""
    ids = body.get("Correlation") or body.get("correlation")
    ids = ids if isinstance(ids, dict) else {}
    told = [ids.get(name) for name in ("request", "RequestId", "operation")]
    told += [headers.get(name) for name in ("x-ms-request-id", "x-ms-correlation-request-id", "x-request-id")]
    return next((str(found)[:_LONGEST_ID] for found in told if found), None)


def _payload_digest(answer: Answer) -> str | None:
    """Of what is refused for good: whether the same is sent again later, or something else."""
    if not 400 <= answer.status_code < 500 or answer.status_code in _NO_REFUSALS:
        return None
    if answer.sent is None:
        # A file that was streamed, which says itself what it is.
        return None if answer.sent_md5 is None else f"md5:{base64.b64decode(answer.sent_md5).hex()}"
    return _digest(answer.sent) if answer.sent else None


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _written(body: Json) -> bytes:
    return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
