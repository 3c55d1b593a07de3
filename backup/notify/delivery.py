"""Brings events from the outbox to their sinks: each sink by itself, oldest event first, at least once.

A process claims a sink before it sends. So two processes send an event twice only if one of them died or was very slow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from backup.config.settings import Settings
from backup.core import interrupts
from backup.core.errors import BackupError
from backup.core.log import event
from backup.core.model import Now
from backup.core.unexpected import safe_text
from backup.jobs.job_queue import JobQueue
from backup.jobs.key_values import Change, Item, KeyValues
from backup.jobs.outbox import OUTBOX
from backup.jobs.stored import count_in, moment_in
from backup.notify.sink import NotDelivered, Send, Sink
from backup.notify.sink_state import SinkState, pause_after, read_state, write_state
from backup.notify.sinks import sinks_of
from backup.stores.calls import TimedCall

SEND_SECONDS = 20.0
"""How long a sink may take for one event."""

WAITING_AT_MOST = 1_000
"""How many events wait for a sink at most; the oldest are given up first."""

REFUSALS_AT_MOST = 8
"""How often an event is tried that the sink itself refuses."""

_YEAR_SECONDS = 366 * 86_400  # more was spoilt
_CUT_AFTER = 1.0  # second; until then whoever waits has gone on
_WORK_SECONDS = 60.0  # well below LEASE, also with the last event's seconds


class Delivery:
    """Delivers events of the outbox. Several threads and processes may deliver at once."""

    def __init__(self, keys: KeyValues, sinks: Sequence[Sink], now: Now) -> None:
        self.sinks = sinks
        self._keys, self._now = keys, now

    def start(self) -> None:
        """Starts a thread for each sink, which sends what waits for it. Returns at once; never raises an error."""
        for sink in self.sinks:
            thread = threading.Thread(target=self._deliver, args=(sink,), name=f"deliver-{sink.name}", daemon=True)
            _threads.add(thread)
            thread.start()

    def _deliver(self, sink: Sink) -> None:
        try:
            self.deliver_to(sink)
        except Exception as error:  # the events stay; the next call tries again
            event("notify.not_delivered", level=logging.WARNING, sink=sink.label, error=safe_text(error))
        finally:
            _threads.discard(threading.current_thread())

    def deliver_to(self, sink: Sink, *, at_once: bool = False) -> int:
        """Sends what waits for the sink, for a minute at most. Returns how many events it took.

        Does nothing while another process sends to the sink, nor, unless `at_once`, in the pause after a failure.
        Raises StoreUnavailable or StoreError when the outbox cannot be read.
        """
        ends_at, sent = time.monotonic() + _WORK_SECONDS, 0
        while (taken := self._deliver_once(sink, ends_at, at_once=at_once)) and time.monotonic() < ends_at:
            sent += taken  # events that came meanwhile: whoever wrote them found the sink claimed
        return sent + taken

    def _deliver_once(self, sink: Sink, ends_at: float, *, at_once: bool) -> int:
        prefix = f"{OUTBOX}{sink.name}:"
        if not self._keys.scan(prefix, limit=1):
            return 0
        item, state = read_state(self._keys, sink)
        now = self._now()
        if state.is_claimed(item, now) or (not at_once and state.rests(item, now)):
            return 0
        claimed = state.claimed(str(uuid4()), now)
        if not write_state(self._keys, sink, claimed, item):
            return 0
        work = _Work(self._keys, sink, self._now, claimed)
        try:
            work.send_all(self._keys.scan(prefix, limit=2 * WAITING_AT_MOST), ends_at)
        finally:
            self._release(sink, work.state)
        return work.sent

    def _release(self, sink: Sink, state: SinkState) -> None:
        item, current = read_state(self._keys, sink)
        if current.claim == state.claim:  # else this was so slow that another process has taken the sink
            write_state(self._keys, sink, replace(state, claim=None, until=None), item)


class _Work:
    """Sends the events that wait for one sink, and keeps what becomes of it."""

    def __init__(self, keys: KeyValues, sink: Sink, now: Now, state: SinkState) -> None:
        self._keys, self._sink, self._now = keys, sink, now
        self.state, self.sent = state, 0

    def send_all(self, items: Sequence[Item], ends_at: float) -> None:
        items = self._bounded(items)
        if not items:
            return
        try:
            with _InTime(self._sink) as send:
                for item in items:
                    if time.monotonic() > ends_at or interrupts.requested():
                        return
                    self._send(send, item)
        except NotDelivered as error:
            self._failed(error)

    def _bounded(self, items: Sequence[Item]) -> list[Item]:
        """The items that may still be sent now; gives up the others that are too old or too many."""
        now = self._now()
        kept = []
        for number, item in enumerate(items):
            if not _is_readable(item):
                self._give_up(item, "it cannot be read")
            elif len(items) - number > WAITING_AT_MOST:
                self._give_up(item, f"more than {WAITING_AT_MOST} events wait for it")
            elif _waited(item, now) > self._sink.keep:
                self._give_up(item, f"it has waited for {self._sink.keep.total_seconds() / 3600:g} h")
            else:
                kept.append(item)
        return [item for item in kept if not _rests(item, now)]

    def _send(self, send: Send, item: Item) -> None:
        """Sends one event. Raises NotDelivered when the sink is down; an event that it refuses rests, and is given up
        in the end."""
        try:
            send(item.value["event"])
        except NotDelivered as error:
            if not error.is_refused:
                raise
            self._refused(item, error)
            return
        self._keys.commit([Change(item.key, None, item.etag)])
        self.sent += 1
        self.state = self.state.recovered(self._now())

    def _refused(self, item: Item, error: NotDelivered) -> None:
        tries = count_in(item.value, "tries") + 1
        if tries >= REFUSALS_AT_MOST:
            self._give_up(item, f"the sink refused it {tries} times: {error}")
            return
        now = self._now()
        noted = {"tries": tries, "after": (now + pause_after(tries + 1)).isoformat()}
        noted["waited"] = max(0, int(_waited(item, now).total_seconds()))
        self._keys.commit([Change(item.key, {**item.value, **noted}, item.etag)])
        event("notify.refused", level=logging.WARNING, sink=self._sink.label, tries=tries, error=error)

    def _failed(self, error: NotDelivered) -> None:
        self.state = self.state.failed(self._now(), str(error), error.hint)
        event(
            "notify.failed",
            level=logging.WARNING,
            sink=self._sink.label,
            failures=self.state.failures,
            error=error,
            hint=error.hint,
        )

    def _give_up(self, item: Item, why: str) -> None:
        if self._keys.commit([Change(item.key, None, item.etag)]):
            message: Mapping[str, Any] = item.value["event"] if _is_readable(item) else {}
            self.state = self.state.gave_up(self._now())
            event(
                "notify.given_up",
                level=logging.ERROR,
                sink=self._sink.label,
                type=message.get("type"),
                service=message.get("subject"),
                event_id=message.get("id"),
                reason=why,
            )


class _InTime:
    """An open sink whose every step has an end. A thread that does not come back is left behind, one for each sink."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._context = sink, sink.opened()

    def __enter__(self) -> Send:
        opened = ended_in_time(self._sink.name, self._context.__enter__)
        return lambda message: ended_in_time(self._sink.name, lambda: opened(message))

    def __exit__(self, *_: object) -> None:
        try:
            ended_in_time(self._sink.name, lambda: self._context.__exit__(None, None, None))
        except NotDelivered as error:  # what it took stays taken
            event("notify.not_closed", level=logging.WARNING, sink=self._sink.label, error=error)


def ended_in_time(name: str, call: Callable[[], Any]) -> Any:
    """Returns what the call returns. Raises NotDelivered if it fails, or takes longer than `SEND_SECONDS`.

    Its thread is then left behind, and the call is cut if it can be. Until the thread ends, no other call with this
    name is made.
    """
    earlier = _left_behind.get(name)
    if earlier is not None and not earlier.done():
        raise NotDelivered(f"It has not answered an earlier event for more than {SEND_SECONDS:g} seconds.")
    future: Future[Any] = Future()

    def work() -> None:
        try:
            with TimedCall(SEND_SECONDS + _CUT_AFTER) as timed, timed.in_this_thread():
                result = call()
            future.set_result(result)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=f"send-{name}", daemon=True).start()
    try:
        return future.result(SEND_SECONDS)
    except NotDelivered:
        raise
    except Exception as error:
        if not future.done():
            _left_behind[name] = future
            raise NotDelivered(f"It did not answer within {SEND_SECONDS:g} seconds.") from None
        # Such as of a library that cannot read what a stranger answers.
        raise NotDelivered(f"Nobody expected how it failed ({type(error).__name__}).") from None


_left_behind: dict[str, Future[Any]] = {}
_threads: set[threading.Thread] = set()


def wait_for_delivery(seconds: float) -> None:
    """Waits until no thread of this process delivers, or so many seconds. What is not delivered then waits in the
    outbox."""
    ends_at = time.monotonic() + seconds
    for thread in list(_threads):
        thread.join(max(0.0, ends_at - time.monotonic()))


def delivery_of(settings: Settings, job_queue: JobQueue) -> Delivery:
    """Returns what delivers the events of the job queue to the sinks of the settings."""
    return Delivery(job_queue.keys, sinks_of(settings), job_queue.now)


def send_now(sink: Sink, message: Mapping[str, Any]) -> BackupError | None:
    """Sends one event past the outbox, in limited time. Returns the error if the sink did not take it."""
    try:
        with _InTime(sink) as send:
            send(message)
    except NotDelivered as error:
        return error
    return None


def time_of(item: Item) -> datetime:
    """When the event of an item of the outbox happened."""
    return datetime.fromisoformat(item.value["event"]["time"])


def _waited(item: Item, now: datetime) -> timedelta:
    """How long an event has waited. A refusal writes its item again, and notes in it how long that was until then."""
    if item.age is None:
        return now - time_of(item)
    return item.age + timedelta(seconds=min(count_in(item.value, "waited"), _YEAR_SECONDS))


def _is_readable(item: Item) -> bool:
    """Whether the item has an event that can be sent."""
    message = item.value.get("event")
    if not isinstance(message, Mapping) or moment_in(message, "time") is None:
        return False
    return all(isinstance(message.get(name), str) for name in ("id", "type"))


def _rests(item: Item, now: datetime) -> bool:
    """Whether it is too early to try an event again that the sink has refused."""
    after, pause = moment_in(item.value, "after"), pause_after(count_in(item.value, "tries") + 1)
    return after is not None and item.age_by(after - pause, now) < pause
