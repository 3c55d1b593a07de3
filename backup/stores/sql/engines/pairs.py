"""Remembers which connections lead to different databases, so that a server is asked once for each pair."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

_NAME, _DIFFERENT, _PAIRS_KEPT = "name of the connection", "connections to other databases", 20


def is_same_by(here: sa.Connection, there: sa.Connection, ask: Callable[[], bool]) -> bool:
    """Whether two connections are in the same database, as `ask` says. Two that were told apart stay apart: neither can
    move to another database, and a lost one is replaced, not connected again."""
    other = there.info.setdefault(_NAME, object())
    different = here.info.setdefault(_DIFFERENT, [])
    if any(other is connection for connection in different):
        return False
    is_same = ask()
    if not is_same:
        different[:] = [*different[-_PAIRS_KEPT:], other]
    return is_same
