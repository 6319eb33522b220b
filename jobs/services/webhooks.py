"""Sends one message to an address somebody typed, and never to a machine within.

The name is looked up once, what it leads to is checked, and that very address is called: a name that answers
differently the second time (DNS rebinding) gains nothing. TLS is verified for the name all the same.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit, urlunsplit

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

from tenants.errors import Invalid

TIMEOUT_S = 5.0
MOST_TRIED = 3  # addresses of one name


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
    # certificates are checked for the name: httpx takes it from here instead of from the address
    extensions = {"sni_hostname": parts.hostname or ""}
    said = ""
    # a proxy of the environment would look the name up again; certificates of the environment still count
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, verify=httpx.create_ssl_context()) as client:
        for address in addresses_of(url)[:MOST_TRIED]:
            where = _bracketed(str(address)) + port
            target = urlunsplit((parts.scheme, where, parts.path or "/", parts.query, ""))
            try:
                # no redirects: an allowed address must not lead to one that is not
                answer = client.post(target, content=body, headers=told, extensions=extensions)
            except httpx.ConnectError as error:  # the next address may answer
                said = f"{type(error).__name__}: {error}"
            except httpx.HTTPError as error:
                return f"{type(error).__name__}: {error}", False
            else:
                return f"HTTP {answer.status_code}", answer.is_success
    return said, False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(told: object) -> IPv4Address | IPv6Address:
    assert isinstance(told, tuple)
    return ip_address(str(told[0]).split("%")[0])


def _is_outside(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_global
    return address.is_global
