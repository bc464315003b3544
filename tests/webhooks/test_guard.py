"""No webhook makes the server connect where it should not: names, addresses, redirects, proxies, certificates."""

import ipaddress
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _is_public_ip

from azureml_emulator.tls import make_certificates
from runmirror.app import create_app
from runmirror.settings import Settings
from runmirror.webhooks.guard import Forbidden, Guard, Unresolvable, is_public
from runmirror.webhooks.sender import MOST_BODY_BYTES, Answered, NotAnswered, Sender
from tests.webhooks.receiver import Receiver, receiving

Send = Callable[..., Awaitable[Answered | NotAnswered]]

API = "/api/2.0/mlflow/webhooks"
HTTP = ("http", "https")

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.0.1.1", "2606:4700::1111", "64:ff9b::808:808"]
# Other spellings of loopback, which resolvers understand.
SPELLINGS = ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "localhost", "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses())
def test_what_mlflow_does_not_call_public_neither_do_we(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert _is_public_ip(address) or not is_public(address)


def answering(*answers: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """A resolver that gives these answers in turn, the last one for ever."""
    left = list(answers)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def guards() -> Iterator[Callable[..., Guard]]:
    made: list[Guard] = []

    def make(*answers: Sequence[str], allow_private: bool = False) -> Guard:
        resolver = {"resolve": answering(*answers)} if answers else {}
        made.append(Guard(HTTP, allow_private=allow_private, **resolver))
        return made[-1]

    yield make
    for guard in made:
        guard.close()


async def test_one_address_that_is_not_public_is_enough(guards: Callable[..., Guard]) -> None:
    for answer in (["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"], ["fe80::1%eth0"]):
        with pytest.raises(Forbidden, match="non-public"):
            await guards(answer).check("https://hooks.example/x")
    await guards(["8.8.8.8", "2606:4700::1111"]).check("https://hooks.example/x")


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_every_spelling_of_loopback_is_refused(guards: Callable[..., Guard], spelling: str) -> None:
    with pytest.raises((Forbidden, Unresolvable)):
        await guards().check(f"http://{spelling}:8080/x")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://x/", "HTTP+UNIX://x", "//hooks.example/", "https://", "https:///x", "http://[",
        "https://user@hooks.example/", "https://:pw@hooks.example/", "https://hooks.example\\@127.0.0.1/",
        "https://hooks.example:99999/", "https://hooks.example:x/", "https://ho oks/\n", "https://a\x00b/", "https://\ud800/",
    ],
)  # fmt: skip
async def test_a_url_that_can_be_read_in_two_ways_is_refused(guards: Callable[..., Guard], url: str) -> None:
    with pytest.raises(Forbidden):
        await guards(["8.8.8.8"]).check(url)


async def test_a_name_without_an_address_may_have_one_later(guards: Callable[..., Guard]) -> None:
    def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    guard = Guard(HTTP, allow_private=False, resolve=nobody)
    for host in ("hooks.example", "a..b", "x" * 70):
        with pytest.raises((Unresolvable, Forbidden)):
            await guard.check(f"https://{host}/")
    with pytest.raises(Unresolvable):
        await guard.check("https://hooks.example/")
    guard.close()


@pytest.fixture
async def send(guards: Callable[..., Guard]) -> AsyncIterator[Send]:
    """`await send(url, *resolver's answers)`"""
    made: list[Sender] = []

    async def send_to(
        url: str,
        *answers: Sequence[str],
        allow_private: bool = False,
        ca_bundle: str | None = None,
        timeout_s: float = 10,
    ) -> Answered | NotAnswered:
        settings = Settings(ca_bundle=ca_bundle, webhook_timeout=timedelta(seconds=timeout_s))
        made.append(Sender(settings, guards(*answers, allow_private=allow_private)))
        return await made[-1].send(url, None, uuid.uuid4(), "{}")

    yield send_to
    for sender in made:
        await sender.close()


async def test_a_name_that_changes_its_address_after_the_check_reaches_nothing(
    guards: Callable[..., Guard], receiver: Receiver
) -> None:
    guard = guards(["8.8.8.8"], ["127.0.0.1"])
    url = f"http://hooks.example:{receiver.port}/x"
    await guard.check(url)  # when the webhook was made
    sender = Sender(Settings(), guard)
    result = await sender.send(url, None, uuid.uuid4(), "{}")
    await sender.close()
    assert isinstance(result, NotAnswered)
    assert result.for_good
    assert receiver.received == []


async def test_the_connection_goes_to_the_address_that_was_checked(send: Send, receiver: Receiver) -> None:
    """The name is known to our resolver alone, and only for one answer."""
    url = f"http://hooks.example:{receiver.port}/x?y=1#z"
    result = await send(url, ["127.0.0.1"], ["192.0.2.1"], allow_private=True)
    assert result == Answered(200, "thanks")
    [got] = receiver.received
    assert (got.path, got.headers["Host"]) == ("/x?y=1", f"hooks.example:{receiver.port}")


async def test_an_address_that_takes_no_connection_is_passed_over(send: Send, receiver: Receiver) -> None:
    result = await send(
        f"http://hooks.example:{receiver.port}/x", ["127.0.0.9", "::1", "127.0.0.1"], allow_private=True
    )
    assert result == Answered(200, "thanks")


async def test_the_certificate_is_that_of_the_name(send: Send, tmp_path: Path) -> None:
    files = make_certificates(tmp_path, ("hooks.example",))
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(files.certificate_file, files.key_file)
    with receiving(trust=trust) as receiver:
        ours = {"allow_private": True, "ca_bundle": str(files.ca_file)}
        assert await send(f"https://hooks.example:{receiver.port}/x", ["127.0.0.1"], **ours) == Answered(200, "thanks")
        for host, options in (("other.example", ours), ("127.0.0.1", ours), ("hooks.example", {"allow_private": True})):
            result = await send(f"https://{host}:{receiver.port}/x", ["127.0.0.1"], **options)
            assert isinstance(result, NotAnswered)
            assert "CERTIFICATE_VERIFY_FAILED" in result.reason
        assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(send: Send, receiver: Receiver, status: int) -> None:
    receiver.answers["/x"] = [(status, {"Location": f"{receiver.url}/inside"}, b"")]
    result = await send(f"{receiver.url}/x", allow_private=True)
    assert isinstance(result, Answered)
    assert (result.status, result.success) == (status, False)
    assert [one.path for one in receiver.received] == ["/x"]


async def test_proxies_of_the_environment_are_not_used(
    send: Send, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"{receiver.url}/proxy")
    result = await send("http://hooks.example:1/x", ["127.0.0.1"], allow_private=True)
    assert isinstance(result, NotAnswered)
    assert receiver.received == []


async def test_an_answer_without_end_is_read_for_a_little(send: Send, receiver: Receiver) -> None:
    result = await send(f"{receiver.url}/endless", allow_private=True)
    assert result == Answered(200, "thanks" + "x" * (MOST_BODY_BYTES - 6))


async def test_a_receiver_that_hangs_is_left(send: Send, receiver: Receiver) -> None:
    assert await send(f"{receiver.url}/hang", allow_private=True, timeout_s=0.3) == NotAnswered(
        "no answer within 0.3 s"
    )


@asynccontextmanager
async def guarded_app(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The app with the defaults of production: https only, public addresses only."""
    strict = Settings(database_url=settings.database_url, data_dir=settings.data_dir, mirror=False)
    assert strict.database_url is not None
    async with LifespanManager(create_app(strict, strict.database_url)) as manager:
        transport = httpx.ASGITransport(app=manager.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_production_refuses_at_creation_at_change_and_at_a_test(
    settings: Settings, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
    request = {"name": "a", "url": f"{receiver.url}/x", "events": [event]}
    made = (await client.post(API, json=request)).json()["webhook"]["webhook_id"]  # while the operator allowed it
    async with guarded_app(settings) as strict:
        for url in (
            f"{receiver.url}/x",
            f"https://127.0.0.1:{receiver.port}/x",
            *(f"https://{one}/" for one in SPELLINGS),
        ):
            for answer in (
                await strict.post(API, json={**request, "url": url}),
                await strict.patch(f"{API}/{made}", json={"url": url}),
            ):
                assert answer.status_code == 400, url
                assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
        result = (await strict.post(f"{API}/{made}/test", json={})).json()["result"]
        assert result["success"] is False
        assert "response_status" not in result
        secret = await strict.post(API, json={**request, "secret": "x"})
        assert "RUNMIRROR_WEBHOOK_SECRET_KEY" in secret.json()["message"]
    assert receiver.received == []
