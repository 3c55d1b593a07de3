"""What the records say about a sink: who sends to it now, how it failed, and what was given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

from backup.jobs.key_values import NEW, Change, Item, KeyValues
from backup.jobs.stored import count_in, moment_in

LEASE = timedelta(minutes=3)
"""How long a process may send before another may."""

PAUSE = timedelta(seconds=45)
"""How long a sink is left alone after its first failure. Less than a minute, so that the minute timer does not come
too early."""

LONGEST_PAUSE = timedelta(hours=1)

STATES = "sink:"


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class SinkState:
    """The state of a sink. Times are aware UTC.

    `claim` marks the process that sends until `until`. `failures` counts the failures since it last took an event, the
    first at `failing_since`; it is not tried before `after`. `label` is that of the sink to which all this happened.
    A claim and a failure are written when they happen, so the age of the record says how long ago that was.
    """

    label: str
    claim: str | None = None
    until: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    after: datetime | None = None
    error: str | None = None
    hint: str | None = None
    sent_at: datetime | None = None
    given_up: int = 0
    given_up_at: datetime | None = None

    def is_claimed(self, item: Item | None, now: datetime) -> bool:
        """Whether a process sends to it. `item` has this state."""
        return item is not None and self.until is not None and item.age_by(self.until - LEASE, now) < LEASE

    def rests(self, item: Item | None, now: datetime) -> bool:
        """Whether it is not tried yet, after a failure. `item` has this state."""
        pause = pause_after(self.failures)
        return item is not None and self.after is not None and item.age_by(self.after - pause, now) < pause

    def claimed(self, claim: str, now: datetime) -> Self:
        """The state while a process sends."""
        return replace(self, claim=claim, until=now + LEASE, after=None)

    def recovered(self, now: datetime) -> Self:
        """The state after it took an event."""
        return replace(self, failures=0, failing_since=None, after=None, error=None, hint=None, sent_at=now)

    def failed(self, now: datetime, error: str, hint: str) -> Self:
        """The state after it did not take an event."""
        failures, since = self.failures + 1, self.failing_since or now
        after = now + pause_after(failures)
        return replace(self, failures=failures, failing_since=since, after=after, error=error, hint=hint)

    def gave_up(self, now: datetime) -> Self:
        """The state after an event was given up."""
        return replace(self, given_up=self.given_up + 1, given_up_at=now)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values; `from_json` reads them."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The state of a record. Ignores fields that this release does not have, and what cannot be read: the sink is
        tried, and its state written anew."""
        values = {item.name: record[item.name] for item in fields(cls) if item.name in record}
        for name in ("until", "failing_since", "after", "sent_at", "given_up_at"):
            values[name] = moment_in(values, name)
        for name in ("label", "claim", "error", "hint"):
            values[name] = text if isinstance(text := values.get(name), str) else None
        for name in ("failures", "given_up"):
            values[name] = count_in(values, name)
        return cls(**{**values, "label": values["label"] or ""})


def pause_after(failures: int) -> timedelta:
    """How long nothing is tried after so many failures in a row."""
    return min(PAUSE * 2.0 ** min(max(0, failures - 1), 10), LONGEST_PAUSE)


def read_state(keys: KeyValues, sink: _Named) -> tuple[Item | None, SinkState]:
    """Returns the item and the state in it. The failures of another address in the sink's place do not count."""
    item = keys.get(f"{STATES}{sink.name}")
    state = SinkState(sink.label) if item is None else SinkState.from_json(item.value)
    if state.label != sink.label:
        state = replace(state, label=sink.label, failures=0, failing_since=None, after=None, error=None, hint=None)
    return item, state


def write_state(keys: KeyValues, sink: _Named, state: SinkState, item: Item | None) -> bool:
    """Writes the state if nobody has changed it since `item` was read. Returns whether it did."""
    return keys.commit([Change(f"{STATES}{sink.name}", state.to_json(), item.etag if item else NEW)])
