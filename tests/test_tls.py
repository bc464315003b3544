"""The server as users start it with a certificate, and with one that clients must have too."""

import datetime as dt
import ipaddress
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runmirror.settings import Settings
from tests.server import START_DEADLINE_S, STOP_DEADLINE_S, clean_environment, free_port


def certificate(folder: Path, name: str) -> Path:
    """A PEM file with a key and a certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


def trusting(server: Path, client: Path | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=server)
    if client is not None:
        context.load_cert_chain(client)
    return httpx.Client(verify=context, trust_env=False, timeout=5)


def health_of_container(port: int, **environment: str) -> int:
    """What the image's health check says of a server at this port."""
    script = Path(__file__).resolve().parents[1] / "docker" / "runmirror-healthcheck"
    told = clean_environment({"RUNMIRROR_PORT": str(port), **environment})
    return subprocess.run([sys.executable, str(script), "server"], env=told, check=False).returncode


def test_serve_speaks_tls_and_asks_for_the_clients_certificate(open_folder: Path, tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    options = [
        "--ssl-certfile",
        str(server),
        "--ssl-ca-certs",
        str(client),
        "--data-dir",
        str(open_folder),
        "--no-mirror",
    ]
    command = [sys.executable, "-m", "runmirror", "serve", "--port", str(port), *options]
    child = subprocess.Popen(command, env=clean_environment({}), stderr=subprocess.PIPE, text=True)
    try:
        with trusting(server, client) as known:
            deadline = time.monotonic() + START_DEADLINE_S
            while time.monotonic() < deadline and child.poll() is None:
                with suppress(httpx.TransportError):
                    ready = known.get(f"{url}/readyz")
                    break
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
            assert ready.status_code == 200
            assert ready.headers["strict-transport-security"] == "max-age=31536000"
            page = {"Origin": f"http://127.0.0.1:{port}", "Host": "127.0.0.1"}
            assert known.get(f"{url}/version", headers=page).status_code == 200
        with trusting(server) as stranger, pytest.raises(httpx.TransportError):
            stranger.get(f"{url}/version")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/version", trust_env=False)
        of_image = {"RUNMIRROR_SSL_CERTFILE": str(server), "RUNMIRROR_SSL_CA_CERTS": str(client)}
        assert health_of_container(port, **of_image) == 0
        assert health_of_container(free_port(), **of_image) == 1
        assert health_of_container(port) == 1, "asked without TLS"
    finally:
        child.terminate()
        _, told = child.communicate(timeout=STOP_DEADLINE_S)
    assert f"on {url}" in told


def test_a_key_without_a_certificate_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need RUNMIRROR_SSL_CERTFILE"):
        Settings(ssl_keyfile=certificate(tmp_path, "server"))
    with pytest.raises(ValueError, match="is not there"):
        Settings(ssl_certfile=tmp_path / "none.pem")
