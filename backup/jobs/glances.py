"""What is known of a service at a glance: enough to say how safe it is, without its last runs.

Many glances lie together under each of sixteen keys `glance:`, and change in the commits of the summaries. So a look at
hundreds of services reads sixteen small values. A service whose last run ended before glances were kept has none yet:
`glance_of` makes it of its last runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from backup.core.errors import SetFailed
from backup.jobs.key_values import NEW, Change, KeyValues
from backup.jobs.record_keys import hashed

_PREFIX = "glance:"
_KEYS = 16
_LOOKS = ("sync", "verify", "drill")


class Glance(NamedTuple):
    """How safe a service is. Times are whole seconds since 1970; None: never.

    - `success`: when the last sync succeeded.
    - `failed`: whether the last sync, verify or drill failed after it.
    - `differs`: whether the newest verify or drill found differences.
    - `newest`, `first`: when the newest run ended, and when the first run began.
    - `in_parts`: whether the last failure is of a set, and only of services that have runs of their own.
    - `began`: when the last sync that succeeded began. Runs that ended before releases knew it have none.
    """

    success: int | None
    failed: bool
    differs: bool
    newest: int | None
    first: int | None
    in_parts: bool = False
    began: int | None = None


NOT_SEEN = Glance(None, False, False, None, None)
"""Of a service without a run."""


def glance_of(last: Mapping[str, Any]) -> Glance:
    """Returns the glance at a service with these last runs, as `RunNumbers.last` returns them."""
    success, failure = last.get("success"), last.get("failure")
    compared = [last[kind] for kind in ("verify", "drill") if kind in last]
    newest_compared: Mapping[str, Any] = max(compared, key=lambda entry: str(entry["at"]), default={})
    ends = (_seconds(last.get(kind)) for kind in ("success", "failure", "verify", "drill"))
    return Glance(
        _seconds(success),
        failure is not None
        and failure.get("verb", "sync") in _LOOKS
        and (success is None or datetime.fromisoformat(failure["at"]) > datetime.fromisoformat(success["at"])),
        newest_compared.get("verified") is False,
        max((end for end in ends if end is not None), default=None),
        int(datetime.fromisoformat(last["first"]).timestamp()) if "first" in last else None,
        failure is not None and failure.get("errorKind") == SetFailed.__name__,
        _seconds(success, "startedAt"),
    )


def glance_change(keys: KeyValues, service: str, last: Mapping[str, Any]) -> Change:
    """The change that keeps the glance at the service with these last runs."""
    key = f"{_PREFIX}{hashed(service)[0]}"
    item = keys.get(key)
    value = {**(item.value if item else {}), service.lower(): glance_of(last)}
    return Change(key, value, item.etag if item else NEW)


def all_glances(keys: KeyValues) -> dict[str, Glance]:
    """Returns the glance at each service that has been kept, by its name in small letters. One read."""
    glances: dict[str, Glance] = {}
    for item in keys.scan(_PREFIX, limit=_KEYS):
        glances.update({service: Glance(*fields) for service, fields in item.value.items()})
    return glances


def _seconds(entry: Mapping[str, Any] | None, name: str = "at") -> int | None:
    return int(datetime.fromisoformat(entry[name]).timestamp()) if entry and entry.get(name) else None
