"""A queue of RabbitMQ or Azure Service Bus as a sink, by kombu."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from backup.notify.sink import NamedSink, NotDelivered, Send, event_text, install_hint

_CONNECT_SECONDS = 5
_CONFIRM_SECONDS = 10
_NOT_FOUND = 404
_HINT = install_hint("brokers", "events")


@dataclass(frozen=True)
class Broker(NamedSink):
    """A durable queue of the broker. RabbitMQ confirms each event before it counts as sent."""

    address: str = field(repr=False)
    queue: str

    @contextmanager
    def opened(self) -> Iterator[Send]:
        """As `Sink` says. Makes the queue on RabbitMQ if it is missing; on Service Bus it must be there."""
        try:
            import kombu
        except ImportError:
            raise NotDelivered("A broker needs the package kombu, which is not installed.", hint=_HINT) from None
        is_rabbit = not self.address.lower().startswith("azureservicebus")
        try:
            with kombu.Connection(self.address, **_options(self.address)) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
                if is_rabbit:
                    queue = kombu.Queue(self.queue, durable=True)
                    try:  # it may be there with other arguments, which would be refused
                        queue(connection.channel()).queue_declare(passive=True)
                    except connection.channel_errors as error:
                        if getattr(error, "code", None) != _NOT_FOUND:
                            raise
                        queue(connection.channel()).queue_declare()
                producer = kombu.Producer(connection.channel())
                yield lambda event: self._publish(producer, event, is_rabbit)
        except NotDelivered:
            raise
        except Exception as error:
            raise _not_taken(error) from None

    def _publish(self, producer: Any, event: Mapping[str, Any], is_rabbit: bool) -> None:
        body = event_text(event)
        options = {"message_id": event["id"], "confirm_timeout": _CONFIRM_SECONDS} if is_rabbit else {}
        try:
            producer.publish(
                body,
                routing_key=self.queue,
                content_type="application/cloudevents+json",
                content_encoding="utf-8",
                delivery_mode=2,
                **options,
            )
        except Exception as error:
            raise _not_taken(error) from None


def _options(address: str) -> dict[str, Any]:
    parts, seconds = urlsplit(address), {"connect_timeout": _CONNECT_SECONDS}
    if parts.scheme.lower() == "amqp":
        return {**seconds, "transport_options": {"confirm_publish": True}}
    if parts.scheme.lower() == "amqps":
        tls = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname}
        return {**seconds, "ssl": tls, "transport_options": {"confirm_publish": True}}
    return {**seconds, "transport_options": {"retry_total": 0}}


def _not_taken(error: Exception) -> NotDelivered:
    """The error of a library without its message, which may have the address."""
    if isinstance(error, ModuleNotFoundError):
        return NotDelivered("Azure Service Bus needs a package that is not installed.", hint=_HINT)
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return NotDelivered("The certificate of the broker cannot be verified, or it speaks no TLS.")
    return NotDelivered(
        f"The broker did not take it ({type(error).__name__}).",
        hint="Check that it runs, the address, the login and its rights on the queue.",
    )
