"""Sends one message to an address somebody typed, and never to a machine within.

The name is looked up once, what it leads to is checked, and that very address is called: a name that answers
differently the second time (DNS rebinding) gains nothing. TLS is verified for the name all the same.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

from tenants.errors import Invalid

CONNECT_S = 3.0
DEADLINE_S = 10.0  # over all addresses of a name, until the status is there
MOST_TRIED = 3  # addresses of one name
_NAT64 = IPv6Network("64:ff9b::/96")


def addresses_of(url: str) -> list[IPv4Address | IPv6Address]:
    """The addresses to call; raises Invalid where the name is unknown or any of them lies within.

    Hosts named in `TAUON_WEBHOOK_HOSTS` may lie anywhere.
    """
    host = urlsplit(url).hostname or ""
    try:
        found: Sequence[tuple[object, ...]] = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        text = _("The name of this webhook is not known.")
        raise Invalid.at("/webhook_url", "unknown_host", text) from None
    addresses = list(dict.fromkeys(_address(one[4]) for one in found))
    if host not in settings.WEBHOOK_HOSTS and not all(_is_outside(one) for one in addresses):
        text = _("This webhook leads into a private network. Ask the staff to allow its host.")
        raise Invalid.at("/webhook_url", "private", text)
    return addresses


def post(url: str, body: str, headers: Mapping[str, str]) -> tuple[str, bool]:
    """POST once; what the receiver said, and whether it took it. Raises Invalid as `addresses_of` does."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    told = {**headers, "host": _bracketed(parts.hostname or "") + port}
    # certificates are checked for the name: httpx takes it from `sni_hostname` instead of from the address
    name = parts.hostname or ""
    said = ""
    # a proxy of the environment would look the name up again; certificates of the environment still count
    timeout = httpx.Timeout(DEADLINE_S, connect=CONNECT_S)
    with (
        httpx.Client(timeout=timeout, trust_env=False, verify=httpx.create_ssl_context()) as client,
        _Deadline(DEADLINE_S) as deadline,
    ):
        for address in addresses_of(url)[:MOST_TRIED]:
            where = _bracketed(str(address)) + port
            target = urlunsplit((parts.scheme, where, parts.path or "/", parts.query, ""))
            try:
                # no redirects: an allowed address must not lead to one that is not
                with client.stream(
                    "POST", target, content=body, headers=told,
                    extensions={"sni_hostname": name, "trace": deadline.trace},
                ) as answer:  # fmt: skip
                    # the status is all that counts: of a body nothing is read
                    return f"HTTP {answer.status_code}", answer.is_success
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # the next address may answer
                said = f"{type(error).__name__}: {error}"
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
                break
            if deadline.passed:
                break
        if deadline.passed:
            said = f"Timeout: no answer within {DEADLINE_S:g} s"
    return said, False


class _Deadline:
    """Cuts the connections of one message when its time is over; timeouts of httpx are of each read alone."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for one in self._sockets:
                one.close()
            self._sockets.clear()

    def trace(self, name: str, info: Mapping[str, Any]) -> None:
        """What httpcore tells of its steps: here it hears of every connection, before TLS."""
        if name != "connection.connect_tcp.complete":
            return
        with self._lock:
            # a handle of our own: httpx may close or wrap its own meanwhile
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())
            if self.passed:
                self._shut()

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            self._shut()

    def _shut(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):  # the other side was faster
                one.shutdown(socket.SHUT_RDWR)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(told: object) -> IPv4Address | IPv6Address:
    assert isinstance(told, tuple)
    return ip_address(str(told[0]).split("%")[0])


def _is_outside(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if carried := _carried(address):
            return all(_is_outside(one) for one in carried)
        if address.is_site_local:
            return False
    # `is_global` is true of multicast; IPv4-compatible addresses (::/96) are reserved
    inner = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not inner


def _carried(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses this one is translated to or tunnelled through on its way."""
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    one = address.ipv4_mapped or address.sixtofour
    return (one,) if one is not None else address.teredo or ()
