"""Reads single values of records that anybody may have spoilt: a value that is none of its kind counts as missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def moment_in(values: Mapping[str, Any], name: str) -> datetime | None:
    """The aware time of this name."""
    try:
        moment = datetime.fromisoformat(values[name])
    except (KeyError, ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def count_in(values: Mapping[str, Any], name: str) -> int:
    """The whole number of this name, from 0 on; 0 if there is none."""
    number = values.get(name)
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0
