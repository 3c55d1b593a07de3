"""The sinks that the settings name. The library of a sink is imported only when the sink is used."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from backup.config.settings import Settings
from backup.notify.sink import Sink

KEEP = timedelta(days=3)
"""How long an event waits for its sink."""

KEEP_HEARTBEAT = timedelta(hours=6)
"""How long a heartbeat waits. A later one would hide that the next night fails."""


def sinks_of(settings: Settings) -> list[Sink]:
    """Returns the sinks that the settings name, under the names of their subscriptions. Connects nowhere."""
    sinks: list[Sink] = []
    if settings.notify_webhooks or settings.notify_heartbeat:
        from backup.notify.webhook import Heartbeat, Webhook

        for number, address in enumerate(settings.notify_webhooks, 1):
            name = f"webhook{number}"
            label = f"{name} ({urlsplit(address).hostname})"
            sinks.append(Webhook(name, label, KEEP, address, settings.notify_webhook_secret))
        if settings.notify_heartbeat:
            label = f"heartbeat ({urlsplit(settings.notify_heartbeat).hostname})"
            sinks.append(Heartbeat("heartbeat", label, KEEP_HEARTBEAT, settings.notify_heartbeat))
    if settings.notify_storage_queue:
        from backup.notify.storage_queue import StorageQueue

        label = f"queue ({settings.notify_storage_queue})"
        sinks.append(StorageQueue("queue", label, KEEP, settings, settings.notify_storage_queue))
    if settings.notify_broker:
        from backup.notify.broker import Broker

        label = f"broker ({settings.notify_broker_queue})"
        sinks.append(Broker("broker", label, KEEP, settings.notify_broker, settings.notify_broker_queue))
    if settings.notify_urls:
        from backup.notify.people import People

        for number, address in enumerate(settings.notify_urls, 1):
            name = f"people{number}"
            sinks.append(People(name, f"{name} ({address.partition('://')[0]})", KEEP, address))
    return sinks
