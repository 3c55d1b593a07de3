"""The values of the settings of notifications: parses and checks them. Does not read the environment.

Addresses hold secrets. No error quotes one.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import PlainValidator

from backup.core.addresses import is_loopback
from backup.core.errors import ConfigError
from backup.core.suggestions import did_you_mean

SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with

_BETWEEN = re.compile(r"[\s,;]+(?=[a-z][a-z0-9+.-]*://)", re.I)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://\S", re.I)
_AT_MOST = 20
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64  # bytes, as Standard Webhooks has it
_BROKERS = ("amqps", "azureservicebus", "amqp")
_QUEUE = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_BROKER_QUEUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REFERENCE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{0,299}")
_SECRET_PART = 12  # characters; shorter parts are words, such as `hook`, which a log may have
_LOCAL_ONLY = "http:// is for this machine alone (127.0.0.1, localhost); write https://"


def parse_addresses(text: Any) -> tuple[str, ...]:
    """Returns the addresses in a text, between spaces, line ends or commas. Raises ValueError for another text."""
    if isinstance(text, tuple):  # the default
        return text
    addresses = tuple(_BETWEEN.split(str(text).strip()))
    if len(addresses) > _AT_MOST:
        raise ValueError(f"it has more than {_AT_MOST} addresses")
    for number, address in enumerate(addresses, 1):
        which = f"address {number} " if len(addresses) > 1 else "it "
        if _SCHEME.match(address) is None or re.search(r"\s", address):
            raise ValueError(f"{which}is not of the form scheme://…; spaces or commas separate addresses")
    return addresses


def parse_webhooks(text: Any) -> tuple[str, ...]:
    """Returns the addresses of webhooks. Raises ValueError unless each is https, or http on this machine."""
    addresses = parse_addresses(text)
    for address in addresses:
        check_web_address(address)
    return addresses


def check_web_address(address: Any) -> str:
    """Returns the address. Raises ValueError unless it is https, or http on this machine."""
    parts = _split(str(address).strip())
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise ValueError(f"it begins with {scheme or 'no scheme'}; write https://…")
    if not parts.hostname:
        raise ValueError("it names no host")
    if scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(_LOCAL_ONLY)
    return str(address).strip()


def parse_webhook_secrets(text: Any) -> tuple[str, ...]:
    """Returns the secrets in a text; a second secret is there while receivers change to it. Raises ValueError for a
    text that is not such a secret."""
    if isinstance(text, tuple):  # the default
        return text
    secrets = tuple(str(text).split())
    for secret in secrets:
        if not secret.startswith(SECRET_PREFIX):
            raise ValueError(f"a secret begins with {SECRET_PREFIX}; docs/notifications.md says how to make one")
        if not _SHORTEST_SECRET <= len(secret_bytes(secret)) <= _LONGEST_SECRET:
            raise ValueError(f"a secret has {_SHORTEST_SECRET} to {_LONGEST_SECRET} bytes")
    return secrets


def secret_bytes(secret: str) -> bytes:
    """Returns the bytes of a secret of webhooks. Raises ValueError if it is not Base64."""
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {SECRET_PREFIX} is not Base64") from None


def check_broker(address: Any) -> str:
    """Returns the address of a broker. Raises ValueError for one that the app does not know, and for amqp:// to another
    machine."""
    text = str(address).strip()
    scheme = text.partition("://")[0].lower()
    if _SCHEME.match(text) is None or scheme not in _BROKERS:
        meant = did_you_mean(scheme, _BROKERS)
        raise ValueError(f"it begins with none of amqps://, azureservicebus:// and amqp://.{meant}")
    if scheme == "azureservicebus":
        if not re.fullmatch(r"azureservicebus://[^@\s]+@[A-Za-z0-9.-]+", text, re.I):
            raise ValueError("write azureservicebus://POLICY:KEY@NAMESPACE")
        return text
    parts = _split(text)
    if not parts.hostname:
        raise ValueError("it names no host")
    if scheme == "amqp" and not is_loopback(parts.hostname):
        raise ValueError("amqp:// is for this machine alone (127.0.0.1, localhost); write amqps://")
    return text


def _matching(pattern: re.Pattern[str], otherwise: str) -> PlainValidator:
    def check(value: Any) -> str:
        text = str(value).strip()
        if pattern.fullmatch(text) is None:
            raise ValueError(otherwise)
        return text

    return PlainValidator(check)


def secrets_in(address: str) -> list[str]:
    """Returns the texts in an address that must not be shown, each also as it reads without percent signs.

    They are the address itself, what stands before its host, and each part of its path and its query that is long
    enough to be a secret. A host without a dot counts as such a part: some services have a token there.
    """
    scheme, _, rest = address.partition("://")
    # The key of Service Bus may have slashes; elsewhere an @ after the host belongs to a path or a query.
    place = rest if scheme.lower() == "azureservicebus" else re.split("[/?#]", rest, maxsplit=1)[0]
    login = place.rpartition("@")[0]
    host, *parts = re.split("[/?&=#:]", rest[len(login) :].lstrip("@"))
    password = login.partition(":")[2]
    hidden = [part for part in (*parts, *([] if "." in host else [host])) if len(part) >= _SECRET_PART]
    given = [part for part in (address, rest, login, password, *hidden) if part]
    return [*given, *map(unquote, given)]


def check_signed(webhook_secrets: Sequence[str]) -> None:
    """Raises ConfigError for webhooks without a secret."""
    if not webhook_secrets:
        raise ConfigError(
            "Setting Notify__WebhookSecret is missing: it signs what goes to Notify__Webhooks.",
            hint="docs/notifications.md says how to make one, and how a receiver verifies a signature.",
        )


def check_has_queues(has_storage_account: bool) -> None:
    """Raises ConfigError for a storage queue without an account."""
    if not has_storage_account:
        raise ConfigError(
            "Setting Notify__StorageQueue names a queue, but the app has no storage account.",
            hint="Set AzureWebJobsStorage, or remove the setting.",
        )


def _split(address: str) -> SplitResult:
    if "\\" in address or not address.isprintable():  # of which libraries make different hosts
        raise ValueError("it is not an address")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise ValueError("it is not an address") from None
    return parts


Addresses = Annotated[tuple[str, ...], PlainValidator(parse_addresses)]
WebhookAddresses = Annotated[tuple[str, ...], PlainValidator(parse_webhooks)]
WebhookSecrets = Annotated[tuple[str, ...], PlainValidator(parse_webhook_secrets)]
WebAddress = Annotated[str, PlainValidator(check_web_address)]
BrokerAddress = Annotated[str, PlainValidator(check_broker)]
QueueName = Annotated[
    str, _matching(_QUEUE, "a queue has 3 to 63 small letters, digits and single dashes, as Azure Storage wants it")
]
BrokerQueue = Annotated[
    str, _matching(_BROKER_QUEUE, "a queue of a broker has letters, digits, dots, dashes and underscores")
]
SourceName = Annotated[str, _matching(_REFERENCE, "write a URI or a path, such as /backup/shop")]
