"""A backup's table gets another name, and the entries of its history and its bin follow. Changes no record."""

from __future__ import annotations

from backup.recycle_bin.entries import RECYCLE_BIN
from backup.runs.history_entries import HISTORY
from backup.stores import Store


def take_name(backup: Store, old: Store, service: str, old_service: str) -> None:
    """Renames the table of `old`, whose service was `old_service`, to the name that the store `backup` has.

    Table and entries change in one transaction. Call it while nobody works on either service. Does nothing if the table
    has its new name already. Raises what the stores raise; then nothing has changed.
    """
    assert backup.relational is not None  # noqa: S101 - for mypy; backup.toml refuses it for containers
    before = {"ServiceName": old_service, "Place": old.catalog.qualified_name()}
    after = {"ServiceName": service, "Place": backup.catalog.qualified_name()}
    backup.relational.take_over(old, (HISTORY, RECYCLE_BIN), before, after)
