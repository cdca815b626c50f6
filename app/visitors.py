"""Who asks: a cookie of the page's own, and the address, behind as many proxies as are trusted."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

COOKIE = "audiolm-visitor"
_TOKEN = re.compile(r"[\w-]{43}", re.ASCII)
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", re.ASCII)
_KEY = secrets.token_bytes(32)  # of this process: an address cannot be told from what is kept of it


@dataclass(frozen=True)
class Visitor:
    """`cookie` is "" for programs and for browsers without cookies; `address` is a keyed hash, good for comparing."""

    cookie: str
    address: str

    @property
    def key(self) -> str:
        """Whose files and runs are whose."""
        return f"cookie {self.cookie}" if self.cookie else f"address {self.address}"


def new_token() -> str:
    """256 random bits, as the cookie's value."""
    return secrets.token_urlsafe(32)


def identify(headers: Headers, peer: str, num_proxies: int) -> Visitor:
    """`peer` is the other end of the connection.

    Each trusted proxy adds what it sees to X-Forwarded-For, in its line or in one of its own behind it, so the last
    `num_proxies` entries are to be believed, and none before them.
    """
    lines = ",".join(headers.getlist("x-forwarded-for"))
    forwarded = [part.strip() for part in lines.split(",") if part.strip()]
    address = forwarded[-min(num_proxies, len(forwarded))] if num_proxies and forwarded else peer
    digest = hashlib.blake2b(_network(address).encode(), key=_KEY, digest_size=16).hexdigest()
    return Visitor(_cookie(headers.get("cookie", "")), digest)


def is_this_machine(host: str) -> bool:
    """Whether a name, as in a Host header, is one of this machine's own, which no other server's name can be."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _network(address: str) -> str:
    """An IPv6 customer has 2^64 addresses or more: they count as one. Some proxies tell the port too."""
    with_port = _WITH_PORT.fullmatch(address)
    try:
        parsed = ipaddress.ip_address(address if with_port is None else with_port[1] or with_port[2])
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None and _TOKEN.fullmatch(morsel.value) else ""
