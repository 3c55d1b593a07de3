"""Says which field of an NCRONTAB expression is wrong, and what the field takes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backup.core.suggestions import quantity, quoted

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_FORMS = "*, a number, a range as 1-5, a step as */15, or several with commas"


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def takes(self) -> str:
        names = f" or {self.names[0].upper()} to {self.names[-1].upper()}" if self.names else ""
        return f"{self.low} to {self.high}{names}"

    def holds(self, text: str) -> bool:
        if text.isdecimal():
            return self.low <= int(text[:9]) <= self.high
        return text.lower() in self.names

    def value_of(self, text: str) -> int:
        """The value that a number or a name of the field stands for."""
        return int(text) if text.isdecimal() else self.low + self.names.index(text.lower())

    def upwards(self, first: str, last: str) -> str:
        """Two ranges, as one text: from `first` to the field's end, and from its start to `last`."""
        least, most = (self.names[0].upper(), self.names[-1].upper()) if first.isalpha() else (self.low, self.high)
        ranges = [(first.upper(), str(most)), (str(least), last.upper())]
        return ",".join(start if start == end else f"{start}-{end}" for start, end in ranges)


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
)
_ORDER = ", ".join(field.name for field in _FIELDS)


def faults_of(schedule: str) -> list[str]:
    """Returns what is wrong with an expression, as parts of a sentence; empty if NCRONTAB takes every field.

    Other crons take five fields, L, W, #, ? and 7 for Sunday; NCRONTAB takes none of these.
    """
    texts = schedule.split()
    if len(texts) == len(_FIELDS):
        return [fault for field, text in zip(_FIELDS, texts, strict=True) if (fault := _fault(field, text))]
    count_fault = f"it has {quantity(len(texts), 'field')} and takes six: {_ORDER}, as in 0 0 0 * * *"
    last_fault = _fault(_FIELDS[-1], texts[-1]) if len(texts) > 1 else None  # the day of week comes last in every cron
    return [count_fault, *([last_fault] if last_fault else [])]


def _fault(field: _Field, text: str) -> str | None:
    for part in text.split(","):
        match = _PART.fullmatch(part)
        ends = [end for end in match.groups()[:2] if end is not None] if match else []
        if match is None or (match[3] is not None and int(match[3][:9]) == 0):
            return f"the {field.name} is {quoted(text)} and takes {_FORMS}"
        if not all(map(field.holds, ends)):
            sunday = "; Sunday is 0" if field.names is _DAYS and "7" in ends else ""
            return f"the {field.name} is {quoted(text)} and takes {field.takes}{sunday}"
        if len(ends) > 1 and field.value_of(ends[0]) > field.value_of(ends[1]):
            # NCRONTAB exchanges the ends; other crons wrap around the end of the field.
            meant = "" if match[3] else f"; write {field.upwards(*ends)}"
            return f"the {field.name} is {quoted(text)}, and a range goes from the smaller to the greater{meant}"
    return None
