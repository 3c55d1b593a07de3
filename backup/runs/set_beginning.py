"""The beginning of a set: what its source has then is kept beside the backup before the first copy is made."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from backup.core.model import utc_now
from backup.runs import upgrade
from backup.runs.set_tables import keep_first_tables
from backup.stores import Store


class SetBeginning:
    """What the source of a set has, of which nothing is in the backup yet. For any thread."""

    def __init__(self, set_name: str, tables: Sequence[str]) -> None:
        """`tables`: the names of all that the source has, also of what no pattern fits now."""
        self._set_name, self._tables = set_name, tables
        self._lock, self._is_kept = Lock(), False

    def keep(self, source: Store, backup: Store, service: str) -> None:
        """Keeps the names, once. Makes the database and the app's own tables for that, and no copy: call it before the
        first one is made. Raises what a store raises."""
        with self._lock:
            if not self._is_kept:
                backup.catalog.make_database(source)
                upgrade.create(backup, service)
                keep_first_tables(backup, self._set_name, self._tables, utc_now())
                self._is_kept = True
