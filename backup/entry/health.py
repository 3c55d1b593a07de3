"""The app's health: whether each side answers, how the last syncs ended, and whether the settings can be used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backup.core.errors import BackupError, ConfigError
from backup.core.log import event, time_text
from backup.core.model import Now, utc_now
from backup.entry.answers import Answer
from backup.runs.condition import Concern
from backup.services.registry import Registry
from backup.services.service import Health


@dataclass(frozen=True)
class HealthState:
    """How each side answered, and everything that is not well."""

    checks: Sequence[Health]
    concerns: Sequence[Concern]

    @property
    def status(self) -> str:
        """Unhealthy when a side does not answer; Degraded when anything else is not well."""
        statuses = {side_status(check.error) for check in self.checks}
        return "Unhealthy" if "Unhealthy" in statuses else "Degraded" if self.concerns else "Healthy"


MoreConcerns = Callable[[Registry], Sequence[Concern]]
"""What is not well by the records of runs."""


def look(open_registry: Callable[[], Registry], more_concerns: MoreConcerns | None = None) -> HealthState:
    """Asks every side for an answer, and every backup how its last syncs ended. Adds `more_concerns` of the registry.
    Writes only log lines."""
    try:
        registry = open_registry()
        checks = registry.ping()
    except ConfigError as error:
        event("health.down", level=logging.WARNING, error=error)
        return HealthState((), [_because("The settings cannot be used.", error)])
    if not checks:
        hint = "docs/configuration.md lists the settings of each service."
        return HealthState((), [Concern("No service is configured.", detail_hint=hint)])
    concerns = [concern for check in checks for concern in (*_of_side(check), *check.concerns)]
    concerns += more_concerns(registry) if more_concerns else ()
    return HealthState(checks, _merged(concerns))


def shape_health(state: HealthState | None, now: Now = utc_now) -> Answer:
    """The answer to HealthCheck: kinds of errors, but no messages, because anybody may ask. `state` None: only that the
    app is up.

    503 when a side is down, else 200: a new instance of the app would not mend a failed sync or a wrong setting.
    """
    status = "Healthy" if state is None else state.status
    body: dict[str, Any] = {"Status": status, "Service": "BackupServices", "Timestamp": time_text(now())}
    if state is not None:
        body["Checks"] = list(map(_check, state.checks))
        body["Reasons"] = list(map(_reason, state.concerns))
    return Answer(503 if status == "Unhealthy" else 200, body)


def _of_side(check: Health) -> list[Concern]:
    if check.error is None:
        return []
    word = "cannot be used as it is set up" if isinstance(check.error, ConfigError) else "is down"
    return [_because(f"The {check.side} {word}.", check.error, check)]


def _merged(concerns: Sequence[Concern]) -> list[Concern]:
    """The concerns; where both sides of a service, or a side and its last sync, have the same error, one for both."""
    by_text: dict[tuple[str | None, str], Concern] = {}
    for concern in concerns:
        text = (concern.service, concern.detail or concern.reason)
        other = by_text.get(text)
        by_text[text] = concern if other is None or other.side == concern.side else _for_both(other, concern)
    return list(by_text.values())


def _for_both(first: Concern, second: Concern) -> Concern:
    if first.side is not None and second.side is not None:
        return replace(second, side=None, reason="The service cannot be used as it is set up.")
    of_side, of_sync = (second, first) if first.side is None else (first, second)
    reason = f"{of_side.reason} {of_sync.reason}"
    return replace(of_side, reason=reason, sync_id=of_sync.sync_id, since=of_sync.since)


def _because(reason: str, error: BackupError, check: Health | None = None) -> Concern:
    return Concern(
        reason,
        check.service if check else None,
        check.side if check else None,
        error=type(error).__name__,
        detail=str(error),
        detail_hint=error.hint,
    )


def side_status(error: BackupError | None) -> str:
    """The status of a side whose check ended so: Degraded for a ConfigError, Unhealthy for any other error."""
    return "Healthy" if error is None else "Degraded" if isinstance(error, ConfigError) else "Unhealthy"


def _check(check: Health) -> dict[str, Any]:
    return {
        "Service": check.service,
        "Side": check.side,
        "Status": side_status(check.error),
        "DurationMs": check.duration_ms,
        "Error": type(check.error).__name__ if check.error else None,
    }


def _reason(concern: Concern) -> dict[str, Any]:
    return {
        "Service": concern.service,
        "Side": concern.side,
        "SyncId": concern.sync_id,
        "Error": concern.error,
        "Reason": concern.reason,
        "Since": None if concern.since is None else time_text(concern.since),
        "Hint": concern.hint,
    }
