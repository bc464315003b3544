"""The way to Azure: a request is sent once, as it was meant, by the way the environment says."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from runmirror.mirror.azureml_transport import Transport
from runmirror.mirror.queue import LeaseLost
from runmirror.mirror.target import SourceChanged, TargetUnavailable
from runmirror.settings import Settings
from tests.server import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Keeps the heads of what it is asked; answers while `answers` says so, then hangs up."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.answers: Callable[[], bool] = lambda: True
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if not self.answers():
                    break
                writer.write(OK)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield made
    listening.close()


@pytest.fixture
async def transport(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Transport]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = Transport(Settings())
    yield made
    await made.close()


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
async def test_a_request_whose_connection_breaks_is_not_sent_again(
    server: Server, transport: Transport, method: str
) -> None:
    """Not even on a connection that was kept: whether it may be repeated is not decided here."""
    await transport.send("GET", f"{server.url}/first", headers={}, has_effect=False)
    server.answers = lambda: False
    with pytest.raises(TargetUnavailable) as raised:
        await transport.send(method, f"{server.url}/second", headers={}, has_effect=True)
    assert raised.value.uncertain
    assert [head.split(" ")[1] for head in server.heads] == ["/first", "/second"]


async def test_a_request_that_never_left_is_not_uncertain(transport: Transport) -> None:
    with pytest.raises(TargetUnavailable) as raised:
        await transport.send("POST", f"http://127.0.0.1:{free_port()}/", headers={}, has_effect=True)
    assert not raised.value.uncertain


async def test_a_body_stays_here_when_the_lease_ends_while_its_connection_is_made(
    server: Server, transport: Transport
) -> None:
    """A stopped process wakes where it was: behind the first look at its lease, in front of the first byte."""
    asked = 0

    def guard() -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise LeaseLost

    with pytest.raises(LeaseLost):
        await transport.send("POST", f"{server.url}/a", headers={}, content=b"{}", has_effect=True, guard=guard)
    await transport.send("POST", f"{server.url}/b", headers={}, content=b"{}", has_effect=True, guard=guard)
    assert [head.split(" ")[1] for head in server.heads] == ["/b"]


async def test_a_signed_url_arrives_as_it_was_signed(server: Server, transport: Transport) -> None:
    signed = "/c/a%20b%2Fc/ü.bin?sv=2021-08-06&sig=a%2Bb%2F%3D&se=2026-01-01T00%3A00%3A00Z"
    await transport.send("PUT", server.url + signed, headers={}, content=b"", has_effect=False)
    await transport.send("GET", server.url, params={"path": "a b/ü&c", "n": 1}, headers={}, has_effect=False)
    first, second = (head.split(" ")[1] for head in server.heads)
    assert first == signed.replace("ü", "%C3%BC")
    assert second == "/?path=a%20b%2F%C3%BC%26c&n=1"


async def test_what_fails_at_the_source_of_a_body_is_told_as_it_is(server: Server, transport: Transport) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise SourceChanged("it is shorter now")

    server.answers = lambda: False
    with pytest.raises(SourceChanged, match="shorter now"):
        await transport.send(
            "PUT", f"{server.url}/f", headers={"Content-Length": "8"}, content=body(), has_effect=False
        )


async def test_the_environments_proxy_is_used_unless_a_host_is_excepted(
    server: Server, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url.removeprefix("http://"))
    await transport.send("GET", "http://eastus.api.azureml.test/x", headers={}, has_effect=False)
    assert server.heads[0].startswith("GET http://eastus.api.azureml.test/x HTTP/1.1\r\n")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await transport.send("GET", f"{server.url}/y", headers={}, has_effect=False)
    assert server.heads[1].startswith("GET /y ")
