"""Several observers are told what one is told; a policy says from when on images and history are kept."""

from datetime import UTC, datetime, timedelta
from typing import Any

from backup.core.run_values import Counts, Run, Status, Trigger
from backup.runs.outcome import Observer, Observers, Outcome
from backup.runs.policy import Policy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Hearing(Observer):
    """Writes down all that it is told, with its own name."""

    def __init__(self, name: str, heard: list[tuple[Any, ...]]) -> None:
        for event in (event for event in vars(Observer) if not event.startswith("_")):
            setattr(self, event, lambda *values, event=event: heard.append((name, event, *values)))


def test_all_observers_are_told_everything_one_after_the_other() -> None:
    heard = list[tuple[Any, ...]]()
    observers = Observers(Hearing("first", heard), Hearing("second", heard))
    run, counts = Run("customer", Trigger.CLI, False, NOW), Counts(inserted=1)
    events: dict[str, tuple[Any, ...]] = {
        "expects": (3,),
        "started": (run,),
        "progress": ("customer", counts),
        "walked": (run,),
        "ended": (Outcome(run.ended(Status.COMPLETED, NOW, counts)),),
        "closed": (run,),
    }
    assert events.keys() == {event for event in vars(Observer) if not event.startswith("_")}
    for event, values in events.items():
        getattr(observers, event)(*values)
    assert heard == [(name, event, *values) for event, values in events.items() for name in ("first", "second")]


def test_a_policy_keeps_what_is_younger_than_its_days() -> None:
    policy = Policy(recycle_days=3, history_days=5)
    assert policy.kept_since(NOW) == NOW - timedelta(days=3)
    assert policy.history_since(NOW) == NOW - timedelta(days=5)
