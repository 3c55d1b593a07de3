"""Sinks over HTTP: webhooks, signed as Standard Webhooks has it, and the heartbeat."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.utils import get_auth_from_url

from backup import __version__
from backup.config.notify_settings import secret_bytes
from backup.core.addresses import is_loopback
from backup.core.log import hide_addresses
from backup.core.model import Now, utc_now
from backup.notify.sink import NamedSink, NotDelivered, Send, event_text
from backup.stores.cut_connections import CutAdapter

_TIMEOUT = (5.0, 10.0)  # seconds to connect, and between two bytes of the answer
_REFUSALS = (400, 413, 415, 422)
_AGENT = f"backup-services/{__version__}"


@dataclass(frozen=True)
class Webhook(NamedSink):
    """An address to which events are posted."""

    address: str = field(repr=False)
    secrets: Sequence[str] = field(repr=False)
    now: Now = utc_now

    @contextmanager
    def opened(self) -> Iterator[Send]:
        """As `Sink` says."""
        with _session(self.address) as session:
            yield lambda event: self._post(session, event)

    def _post(self, session: requests.Session, event: Mapping[str, Any]) -> None:
        body = event_text(event).encode()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8", "User-Agent": _AGENT}
        headers |= signed(self.secrets, event["id"], int(self.now().timestamp()), body)
        _ask(lambda: session.post(self.address, data=body, headers=headers, **_OPTIONS))


@dataclass(frozen=True)
class Heartbeat(NamedSink):
    """An address that is asked after each good night. Whoever watches it raises the alarm when nobody asks."""

    address: str = field(repr=False)

    @contextmanager
    def opened(self) -> Iterator[Send]:
        """As `Sink` says."""
        with _session(self.address) as session:
            yield lambda _: _ask(lambda: session.get(self.address, headers={"User-Agent": _AGENT}, **_OPTIONS))


def _stay(response: requests.Response, **_: Any) -> None:
    """Forgets where the answer leads. No redirection is followed, and where requests cannot read the address, it fails
    and leaves the connection open."""
    response.headers.pop("Location", None)


_OPTIONS: dict[str, Any] = {
    "timeout": _TIMEOUT,
    "allow_redirects": False,
    "stream": True,  # the status is all that counts, so a long answer is not read
    "hooks": {"response": _stay},
}


def signed(secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Returns the headers that sign a body sent at that time (seconds since 1970), with one signature per secret."""
    content = b".".join((event_id.encode(), str(timestamp).encode(), body))
    signatures = (
        base64.b64encode(hmac.new(secret_bytes(secret), content, hashlib.sha256).digest()).decode()
        for secret in secrets
    )
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


@contextmanager
def _session(address: str) -> Iterator[requests.Session]:
    hide_addresses()
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, CutAdapter())
        # The environment may name a proxy, and certificates. Its .netrc must not add a login to a stranger's address.
        session.trust_env = not is_loopback(urlsplit(address).hostname or "")
        login = get_auth_from_url(address)
        session.auth = login if any(login) else lambda request: request
        yield session


def _ask(call: Callable[[], requests.Response]) -> None:
    """Makes the call. Raises NotDelivered unless its status is 2xx. No error has the address in it."""
    try:
        with call() as response:
            status = response.status_code
    except requests.exceptions.SSLError:
        raise NotDelivered(
            "The certificate of the server cannot be verified, or it speaks no TLS.",
            hint="For a certificate of your own authority, REQUESTS_CA_BUNDLE names a file with it.",
        ) from None
    except requests.exceptions.Timeout:
        raise NotDelivered("It did not answer in time.") from None
    except requests.exceptions.ConnectionError:
        raise NotDelivered("Nothing answers there, or the connection broke.") from None
    except requests.exceptions.RequestException as error:
        raise NotDelivered(f"The request could not be made ({type(error).__name__}).") from None
    if not 200 <= status < 300:
        moved = " The app follows no redirection: write the new address." if 300 <= status < 400 else None
        raise NotDelivered(f"It answered HTTP {status}.", hint=moved, is_refused=status in _REFUSALS)
