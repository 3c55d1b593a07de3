"""Reads values of the records, which anybody may have spoilt: by hand, by a program, by a damaged disk.

What cannot be read counts as missing, and the log names its record. So whoever uses a value finds each of its parts as
it was meant, or does not find it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from backup.core.log import event

_LARGEST = 2**63
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
_TOLD_AT_MOST = 1_000

Fits = Callable[[Any], Any]
"""Returns the value, without parts that are not needed and cannot be read. Raises ValueError for what is none."""


def stored_value(key: str, text: str) -> dict[str, Any]:
    """The value in a stored text; empty where the text is none of a value that belongs under this key."""
    check = _CHECKS.get(key.partition(":")[0], _ANYTHING)
    try:
        value: dict[str, Any] = check(json.loads(text, parse_constant=_nothing, parse_float=_finite))
    except (ValueError, TypeError, RecursionError) as error:
        _tell(key, str(error) if isinstance(error, Spoilt) else type(error).__name__)
        return {}
    return value


class Spoilt(ValueError):
    """A value is not what it should be."""


def record(
    needed: Mapping[str, Fits] | None = None,
    optional: Mapping[str, Fits] | None = None,
    other: Fits | None = None,
) -> Fits:
    """The check of a value with names: what is `needed`, and `optional`. `other` checks all other names; without it
    they stay as they are, such as those of a later release."""

    all_needed = needed or {}
    checks = {**(optional or {}), **all_needed}

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Spoilt("it has no names")
        read = {}
        for name, part in value.items():
            of_part = checks.get(name, other)
            try:
                read[name] = part if of_part is None else of_part(part)
            except (ValueError, TypeError):
                if name in all_needed:
                    raise Spoilt(f"{name} is spoilt") from None
        if missing := all_needed.keys() - read.keys():
            raise Spoilt(f"{min(missing)} is missing")
        return read

    return check


def number(value: Any) -> Any:
    """A number from 0 on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        raise Spoilt("no number")
    return value


def whole_number(value: Any) -> int:
    """A whole number from 0 on."""
    if not isinstance(number(value), int):
        raise Spoilt("no whole number")
    return int(value)


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Spoilt("neither true nor false")
    return value


def whole_text(value: Any) -> str:
    """A text that can be encoded."""
    if not isinstance(value, str):
        raise Spoilt("no text")
    value.encode()
    return value


def moment_text(value: Any) -> str:
    """The text of an aware time."""
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None or not _FIRST <= moment <= _LAST:
        raise Spoilt("no time")
    return str(value)


def or_none(check: Fits) -> Fits:
    """The check of a value that may be None."""
    return lambda value: None if value is None else check(value)


def list_of(check: Fits) -> Fits:
    """The check of a list, which keeps what fits."""

    def is_fit(part: Any) -> bool:
        try:
            check(part)
        except (ValueError, TypeError):
            return False
        return True

    def checked(value: Any) -> Any:
        if not isinstance(value, list):
            raise Spoilt("no list")
        return [part for part in value if is_fit(part)]

    return checked


def moment_in(values: Mapping[str, Any], name: str) -> datetime | None:
    """The aware time of this name; None if there is none."""
    try:
        return datetime.fromisoformat(moment_text(values[name]))
    except (KeyError, ValueError, TypeError):
        return None


def count_in(values: Mapping[str, Any], name: str) -> int:
    """The whole number of this name, from 0 on; 0 if there is none."""
    try:
        return whole_number(values.get(name))
    except ValueError:
        return 0


def _word(value: Any) -> str:
    if not whole_text(value).isalnum():
        raise Spoilt("no word")
    return str(value)


def _digits(value: Any) -> Any:
    """The numbers of runs, by how long they took."""
    return {
        step: runs
        for step, runs in _NUMBERS(value).items()
        if step.isascii() and step.isdigit() and len(step) <= 3  # longer than the age of the world
    }


def _glance(value: Any) -> Any:
    if not isinstance(value, list) or not len(value) >= 5:
        raise Spoilt("no glance")
    return [check(part) for check, part in zip(_GLANCE, value, strict=False)]


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _nothing(_: str) -> None:
    """NaN and Infinity are no numbers of JSON."""


_told: set[str] = set()


def _tell(key: str, problem: str) -> None:
    """Logs once in a process that the record cannot be read."""
    if key not in _told and len(_told) < _TOLD_AT_MOST:
        _told.add(key)
        event("record.not_read", level=logging.WARNING, key=key, error=problem)


_ANYTHING, _NUMBERS = record(), record(other=number)
_MAY_BE_TEXT = or_none(whole_text)
_GLANCE: tuple[Fits, ...] = (
    *(or_none(whole_number), flag, flag, or_none(whole_number), or_none(whole_number)),
    *(flag, or_none(whole_number)),
)
_ENTRY = record(
    {"at": moment_text},
    {
        **dict.fromkeys(("syncId", "verb", "error", "errorKind"), _MAY_BE_TEXT),
        **{"startedAt": moment_text, "verified": or_none(flag), "records": or_none(number)},
    },
)


def _last(value: Any) -> Any:
    """The last runs of a service. One entry that cannot be read makes all of them unknown, so that none hides what
    happened after it."""
    kinds = ("success", "failure", "verify", "drill", "versions", "contents", "seen")
    there = [kind for kind in kinds if kind in value] if isinstance(value, dict) else []
    needed = {"service": whole_text, **dict.fromkeys(there, _ENTRY)}
    return record(needed, {"first": moment_text, "overdue": record({"at": moment_text, "since": whole_text})})(value)


def _run(value: Any) -> Any:
    """The summary of a run."""
    ended = {"completedAt": moment_text} if isinstance(value, dict) and "completedAt" in value else {}
    return record(
        {
            "syncId": whole_text,
            "service": whole_text,
            "verb": _word,
            "status": _word,
            "startedAt": moment_text,
            **ended,
        },
        {
            **dict.fromkeys(("trigger", "error", "errorKind", "hint", "jobId", "requestedBy"), whole_text),
            **dict.fromkeys(("durationMs", "percent", "limit"), number),
            **dict.fromkeys(("forced", "dryRun", "verified"), flag),
            **{"readAsOf": moment_text, "counts": _NUMBERS},
            **{"notes": list_of(whole_text), "failures": list_of(list_of(whole_text))},
        },
    )(value)


_JOB = record(  # `Job.from_json` reads the rest
    optional={
        **dict.fromkeys(("requested_by", "owner", "claim", "sync_id", "error", "error_kind", "hint"), whole_text),
        **dict.fromkeys(("started_at", "ended_at"), moment_text),
        **dict.fromkeys(("attempt", "retries"), whole_number),
        **{"percent": number, "counts": record(other=whole_number), "proof": _ANYTHING},
    }
)
_WITH_DURATIONS = record(None, {"durations": _digits}, number)
_CHECKS: Mapping[str, Fits] = {
    "all": _JOB,
    "job": record({"order": _word}),
    "lines": record(None, {"lines": list_of(whole_text)}),
    "numbers": _NUMBERS,
    "run": _run,
    "runid": record({"order": _word}),
    "day": record({"service": whole_text}, None, number),
    "stat": _WITH_DURATIONS,
    "total": _WITH_DURATIONS,
    "last": _last,
    "glance": record(other=_glance),
    "sum": record({"service": whole_text, "verbs": record(other=_NUMBERS)}),
}
"""What the values are, by what their keys begin with."""
