"""Webhooks go to the address that was checked, with the name's own certificate, and nowhere within."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.services import webhooks
from tenants.errors import Invalid

NAME = "hooks.example.org"
OUTSIDE = "203.0.114.7"


class Names:
    """A name server of the test's own: each look-up of a name gives the next answer, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, port: Any, *more: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.told:
            return self._real(host, port, *more, **named)
        self.asked.append(name)
        answers = self.told[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port or 0)) for one in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


class Receiver:
    """A server on 127.0.0.1, with TLS if it has a certificate, that remembers whom callers asked for."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.hosts: list[str] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                receiver.hosts.append(self.headers["host"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def certificate(path: Path, name: str) -> Path:
    """A certificate for one name, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return path


@pytest.fixture
def plain() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.server.shutdown()
    one.server.server_close()


def test_a_name_that_changes_its_mind_leads_nowhere_within(
    names: Names, plain: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: outside while it is checked, inside when it is called."""
    names.told[NAME] = [[OUTSIDE], ["127.0.0.1"]]
    called: list[str] = []

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        called.append(address[0])
        raise ConnectionRefusedError("a test calls nobody outside")

    monkeypatch.setattr(socket, "create_connection", connect)
    _said, fine = webhooks.post(f"http://{NAME}:{plain.port}/hook", "{}", {})
    assert not fine and plain.hosts == []
    assert called == [OUTSIDE], "the address that was checked is the one that is called"
    assert names.asked == [NAME], "it was looked up again for the call"


def test_one_address_within_among_others_is_enough_to_refuse(names: Names) -> None:
    for inner in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0"):
        names.told[NAME] = [[OUTSIDE, inner]]
        with pytest.raises(Invalid, match="private network"):
            webhooks.post(f"https://{NAME}/hook", "{}", {})
    for url in ("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f.1/"):
        with pytest.raises(Invalid):
            webhooks.addresses_of(url)


def test_an_allowed_host_is_called_by_its_own_name(names: Names, plain: Receiver, settings: Any) -> None:
    settings.WEBHOOK_HOSTS = [NAME]
    names.told[NAME] = [["127.0.0.1"]]
    assert webhooks.post(f"http://{NAME}:{plain.port}/hook?a=1", "{}", {}) == ("HTTP 204", True)
    assert plain.hosts == [f"{NAME}:{plain.port}"]


def test_the_certificate_is_checked_for_the_name_and_not_for_the_address(
    names: Names, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOK_HOSTS = [NAME, "other.example.org"]
    trusted = certificate(tmp_path / "one.pem", NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    receiver = Receiver(trusted)
    names.told = {NAME: [["127.0.0.1"]], "other.example.org": [["127.0.0.1"]]}
    try:
        assert webhooks.post(f"https://{NAME}:{receiver.port}/", "{}", {}) == ("HTTP 204", True)
        said, fine = webhooks.post(f"https://other.example.org:{receiver.port}/", "{}", {})
        assert not fine and "certificate verify failed" in said.lower()
        assert receiver.hosts == [f"{NAME}:{receiver.port}"]
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def test_the_next_address_of_a_name_is_tried_where_one_refuses(
    names: Names, plain: Receiver, settings: Any
) -> None:
    settings.WEBHOOK_HOSTS = [NAME]
    names.told[NAME] = [["127.0.0.99", "127.0.0.1"]]  # the server listens on the second alone
    assert webhooks.post(f"http://{NAME}:{plain.port}/hook", "{}", {}) == ("HTTP 204", True)


def test_the_next_address_is_tried_where_one_never_answers(
    names: Names, plain: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOK_HOSTS = [NAME]
    names.told[NAME] = [["127.0.0.99", "127.0.0.1"]]
    connect = socket.create_connection

    def silent(address: tuple[str, int], *more: Any, **named: Any) -> socket.socket:
        if address[0] == "127.0.0.99":
            raise TimeoutError("timed out")
        return connect(address, *more, **named)

    monkeypatch.setattr(socket, "create_connection", silent)
    assert webhooks.post(f"http://{NAME}:{plain.port}/hook", "{}", {}) == ("HTTP 204", True)


def drip(first: bytes, then: bytes) -> tuple[int, threading.Event]:
    """A receiver that says `first` and then goes on with `then`, piece by piece; its port, and when it was left."""
    server, left = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        caller, _where = server.accept()
        with server, caller:
            caller.recv(65536)
            with contextlib.suppress(OSError):
                caller.sendall(first)
                for _ in range(600):
                    caller.sendall(then)
                    time.sleep(0.1)
                return  # it was never cut off
        left.set()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], left


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_drips_is_left_at_the_deadline(
    names: Names, settings: Any, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Each piece comes long before a timeout of one read would end."""
    settings.WEBHOOK_HOSTS = [NAME]
    monkeypatch.setattr(webhooks, "DEADLINE_S", 1.0)
    names.told[NAME] = [["127.0.0.1"]]
    # in the midst of the headers, or of the record a TLS handshake begins with
    pieces = (b"HTTP/1.1 200 OK\r\nx: ", b"a") if scheme == "http" else (b"\x16\x03\x03\x3f\xff", b"\0")
    port, left = drip(*pieces)
    said, fine = webhooks.post(f"{scheme}://{NAME}:{port}/", "{}", {})
    assert not fine and said == "Timeout: no answer within 1 s"
    assert left.wait(30)


def test_of_a_body_without_end_nothing_is_read(names: Names, settings: Any) -> None:
    settings.WEBHOOK_HOSTS = [NAME]
    names.told[NAME] = [["127.0.0.1"]]
    port, left = drip(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", b"a" * 100)
    assert webhooks.post(f"http://{NAME}:{port}/", "{}", {}) == ("HTTP 200", True)
    assert left.wait(30)


@pytest.mark.parametrize(
    "address",
    ["64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "::10.0.0.1", "::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1",
     "2001:0:808:808::f5ff:fffe", "ff0e::1", "fec0::1", "::", "::1", "::ffff:10.0.0.1", "fe80::1", "4000::1",
     "224.0.0.1", "239.1.1.1", "240.0.0.1", "64:ff9b:1::8.8.8.8"],
)  # fmt: skip
def test_an_address_that_ends_within_or_nowhere_is_not_outside(address: str) -> None:
    assert not webhooks._is_outside(ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"])
def test_an_address_of_the_world_is_outside(address: str) -> None:
    assert webhooks._is_outside(ip_address(address))
