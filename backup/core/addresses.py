"""Whether an address leads to this machine. Asks no name server."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, whatever a name server says."""
    plain = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(plain).is_loopback
    except ValueError:
        return plain == "localhost"
