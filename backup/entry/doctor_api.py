"""The answer to an examination: what HTTP sends and `doctor --json` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backup.config.settings import Settings
from backup.core.errors import ConfigError
from backup.core.log import time_text
from backup.core.model import utc_now
from backup.doctor.findings import Finding, Grade, worst, wrong
from backup.entry.answers import Answer
from backup.entry.requests import check_no_body, check_query


def post_doctor(load: Callable[[], Settings], query: Mapping[str, str], body: bytes) -> Answer:
    """Examines the set-up and changes nothing. 200 also where something is wrong: `Status` says the worst."""
    check_query(query)
    check_no_body(body)
    return shape_findings(examined(load))


def examined(load: Callable[[], Settings]) -> list[Finding]:
    """Returns what an examination has found; of settings that cannot be used, only why."""
    from backup.doctor.app_parts import version_findings  # no other function needs them
    from backup.doctor.examination import examine

    try:
        settings = load()
    except ConfigError as error:
        return [wrong("settings", "settings", error), *version_findings()]
    return examine(settings)


def shape_findings(findings: Sequence[Finding]) -> Answer:
    """Returns the answer with all findings, as they came; `Success` unless one has failed."""
    grade, numbers = worst(findings), Counter(finding.grade for finding in findings)
    body: dict[str, Any] = {
        "Success": grade is not Grade.FAILED,
        "Status": grade.value,
        "Counts": {each.value.title(): numbers[each] for each in Grade},
        "Checks": [
            {
                "Status": finding.grade.value,
                "Subject": finding.subject,
                "Check": finding.check,
                "Message": finding.message,
                "Hint": finding.hint or None,
                "DurationMs": finding.duration_ms,
            }
            for finding in findings
        ],
        "Timestamp": time_text(utc_now()),
    }
    return Answer(200, body)
