"""Events that wait for their sinks, beside the records of jobs and runs: written together with what they are about.

Each sink has an entry of its own for each event, so that no sink waits for another. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from backup.config.settings import Settings
from backup.jobs.events import DIGEST, GOOD_NIGHT, Event, is_about_failure
from backup.jobs.key_values import Change

OUTBOX = "outbox:"
"""The keys of events that wait: `outbox:SINK:TIME-ID`, so that the oldest of a sink comes first."""


class Subscription(NamedTuple):
    """A sink's name, and which types of events go to it."""

    sink: str
    takes: Callable[[str], bool]


class Outbox:
    """Makes the changes that put events into the outbox."""

    def __init__(self, subscriptions: Sequence[Subscription] = (), source: str = "") -> None:
        self._subscriptions, self._source = subscriptions, source

    def changes(self, event: Event) -> list[Change]:
        """Returns the changes that let the event wait for each of its sinks. To make them twice changes nothing."""
        message = event.to_json(self._source)
        key = f"{max(0, int(event.time.timestamp() * 1000)):014}-{event.id}"
        sinks = [subscription.sink for subscription in self._subscriptions if subscription.takes(event.type)]
        return [Change(f"{OUTBOX}{sink}:{key}", {"event": message}) for sink in sinks]


def subscriptions_of(settings: Settings) -> list[Subscription]:
    """Returns the sinks that the settings name, each with the events that go to it.

    A sink is named by its kind and its place among those of its kind. So events that wait go to the new address when a
    wrong one is corrected.
    """
    machines = [f"webhook{number}" for number, _ in enumerate(settings.notify_webhooks, 1)]
    machines += ["queue"] if settings.notify_storage_queue else []
    machines += ["broker"] if settings.notify_broker else []
    people = [f"people{number}" for number, _ in enumerate(settings.notify_urls, 1)]
    takes = {"failures": is_about_failure, "all": _is_told, "digest": DIGEST.__eq__}[settings.notify_send]
    return [
        *(Subscription(sink, _is_told) for sink in machines),
        *(Subscription(sink, takes) for sink in people),
        *([Subscription("heartbeat", GOOD_NIGHT.__eq__)] if settings.notify_heartbeat else []),
    ]


def _is_told(kind: str) -> bool:
    return kind not in (DIGEST, GOOD_NIGHT)
