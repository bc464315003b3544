"""The protocol that `serve` has uvicorn speak, seen from a socket."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from runmirror.settings import Settings
from tests.server import Server, serving

CREATE = "/api/2.0/mlflow/experiments/create"
FILES = "/api/2.0/mlflow-artifacts/artifacts"
SEED = 20261126

# How many bytes a piece of a body may have, and how many pieces there are.
CUTS = {"letters": ((1, 2, 3), 10_000), "blocks": ((60_000, 70_000), 100), "both": ((1, 2, 200_000), 100)}


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as connection:
        yield connection


def ask(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def received(connection: socket.socket, until: bytes) -> bytes:
    answer = b""
    while not answer.endswith(until):
        more = connection.recv(65536)
        assert more, f"closed after {answer!r}"
        answer += more
    return answer


def test_an_answer_leaves_in_one_piece_whatever_was_asked_and_how(settings: Settings, tmp_path: Path) -> None:
    assert settings.database_url is not None
    options = ("--backend-store-uri", settings.database_url, "--no-mirror")
    with serving(tmp_path / "data", *options) as server, connected(server) as connection:
        connection.sendall(ask("GET", "/health"))
        first = connection.recv(65536)
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert first.endswith(b"\r\n\r\nOK"), "the body came after its head"

        connection.sendall(ask("HEAD", "/health"))
        assert b"\r\n" in received(connection, b"\r\n\r\n")  # and then the connection goes on

        body = json.dumps({"name": "announced"}).encode()
        sized = (f"Content-Length: {len(body)}", "Content-Type: application/json")
        connection.sendall(ask("POST", CREATE, *sized, "Expect: 100-continue"))
        assert received(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b'"experiment_id"' in received(connection, b"}")

        connection.sendall(ask("GET", "/health") + ask("GET", "/version"))
        both = received(connection, b"OK")
        while both.count(b"HTTP/1.1 200 OK") < 2:
            both += connection.recv(65536)
        assert both.index(b"\r\n\r\nOK") < both.rindex(b"HTTP/1.1 200 OK")


def test_a_body_arrives_as_it_was_sent_however_it_is_cut(settings: Settings, tmp_path: Path) -> None:
    assert settings.database_url is not None
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    options = ("--backend-store-uri", settings.database_url, "--no-mirror")
    with serving(tmp_path / "data", *options) as server:
        for name, (sizes, count) in CUTS.items():
            pieces = [chance.randbytes(chance.choice(sizes)) for _ in range(count)]
            path = f"{FILES}/cut/{name}"
            with connected(server) as connection:
                chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
                connection.sendall(ask("PUT", path, "Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
                assert received(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
            assert httpx.get(server.url + path, trust_env=False).content == b"".join(pieces), name
