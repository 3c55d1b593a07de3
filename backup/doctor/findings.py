"""What a check has found; and how checks are made side by side, each with an end. Knows no database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backup.core.errors import BackupError
from backup.core.log import redact
from backup.core.unexpected import as_backup_error
from backup.services.turns import side_by_side
from backup.stores.calls import CallEnded
from backup.stores.left_calls import left_in_time

CHECK_SECONDS = 15.0
"""When a check ends, whatever does not answer."""

SERVER_SECONDS = 5.0
"""When one call to a server ends."""

ALL_SECONDS = 120.0
"""When no further check begins. An HTTP answer has to be there after 230 seconds."""

_AT_ONCE = 12  # fewer than the threads that a process may leave behind


class Grade(StrEnum):
    """How a check ended, the worst first."""

    FAILED = "failed"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True)
class Finding:
    """What a check has found about a subject, and what to do. `subject`: a service and its side, or a part of the app.
    No text has a secret."""

    grade: Grade
    subject: str
    check: str
    message: str
    hint: str = ""
    duration_ms: int = 0


@dataclass(frozen=True)
class Check:
    """A check to be made: `look` returns what it has found, and raises no more than `found` can tell."""

    subject: str
    name: str
    look: Callable[[], Iterable[Finding]]


def fine(subject: str, check: str, message: str) -> Finding:
    """Returns the finding that all is well."""
    return Finding(Grade.OK, subject, check, message)


def wrong(subject: str, check: str, error: BackupError, grade: Grade = Grade.FAILED) -> Finding:
    """Returns the finding that an error tells."""
    return Finding(grade, subject, check, redact(str(error)), redact(error.hint))


def worst(findings: Iterable[Finding]) -> Grade:
    """Returns the worst grade of the findings."""
    grades = {finding.grade for finding in findings}
    return next((grade for grade in Grade if grade in grades), Grade.OK)


def findings_of(checks: Sequence[Check], ends_at: float, seconds: float = CHECK_SECONDS) -> list[Finding]:
    """Makes the checks side by side; returns what they have found, in their order.

    Each ends after `seconds`; a thread whose server does not answer is left behind. None begins after `ends_at`, by the
    monotonic clock: it is then a finding of its own.
    """

    def make(check: Check) -> list[Finding]:
        if time.monotonic() >= ends_at:
            text = "It was not looked at: other checks took too long."
            return [
                Finding(Grade.FAILED, check.subject, check.name, text, "Name one service, or mend what is told above.")
            ]
        started = time.perf_counter()
        try:
            findings = left_in_time(seconds, lambda _: list(check.look()))
        except CallEnded:
            text = f"There was no answer within {seconds:g} s."
            hint = "Check that the server runs, and that its firewall admits this app."
            findings = [Finding(Grade.FAILED, check.subject, check.name, text, hint)]
        except Exception as error:
            findings = [wrong(check.subject, check.name, as_backup_error(error))]
        took = round((time.perf_counter() - started) * 1000)
        return [replace(finding, duration_ms=took) for finding in findings]

    return [finding for findings in side_by_side(make, checks, _AT_ONCE) for finding in findings]
