"""The foreign keys of a set's tables: in the source, kept beside the backup, and added to what a restore has made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from backup.core.errors import BackupError, BadRequest, SourceMissing
from backup.core.log import event
from backup.core.model import utc_now
from backup.runs.set_catalog import KeptForeignKeys, keep_foreign_keys, kept_foreign_keys
from backup.services.set_members import Members
from backup.services.set_specs import SetSpecs
from backup.stores import ForeignKey
from backup.stores.sides import add_foreign_key, dialect_of, list_places


class SetForeignKeys:
    """The foreign keys of one set. For any thread."""

    def __init__(self, specs: SetSpecs, members: Callable[[], Members]) -> None:
        """`members` returns what the set has now."""
        self._specs, self._members = specs, members
        self._is_cosmos = specs.section.is_cosmos

    def known(self, target: str | None = None) -> list[ForeignKey]:
        """The foreign keys of the set's tables in the source, and those in the database of the connection string
        `target`. For a source that cannot be asked, those that the last sync of the set has kept. Raises what a store
        raises for a target that exists."""
        foreign_keys = [key for listed in self._members().listed.values() for key in listed.foreign_keys]
        if (kept := self.kept) is not None:
            foreign_keys = [*kept.foreign_keys]
        if target is not None and not self._is_cosmos:
            with suppress(SourceMissing):  # the restore makes it
                places = list_places(self._specs.target(target), self._specs.limits)
                foreign_keys += [key for listed in places for key in listed.foreign_keys]
        return foreign_keys

    def check_addable(self, target: str) -> None:
        """Raises BadRequest where `add` cannot add one, and the error of a source that cannot be asked for its foreign
        keys, if no sync has kept them."""
        if self._is_cosmos or dialect_of(self._specs.target(target), self._specs.limits).in_process:
            product = "Cosmos DB has no foreign keys" if self._is_cosmos else "SQLite cannot add foreign keys"
            raise BadRequest(f"{product}. Nothing was changed.", hint="Restore without constraints.")
        if not self._members().listed and self.kept is None:
            for error in self._members().errors:
                raise error

    @cached_property
    def kept(self) -> KeptForeignKeys | None:
        """The foreign keys that the last sync has kept beside the backup, if the source cannot be asked; else None.
        Costs one query then."""
        if self._is_cosmos or self._members().listed or not self._members().errors:
            return None
        try:
            with self._specs.beside() as backup:
                return kept_foreign_keys(backup, self._specs.name)
        except BackupError as error:
            event(
                "set.foreign_keys_not_read", level=logging.WARNING, set=self._specs.name, error=error, hint=error.hint
            )
            return None

    def keep(self) -> None:
        """Keeps the foreign keys of the source beside the backup, if it could be asked. Costs one query, and a write
        where something has changed. Logs an error: the copies are right without it."""
        members = self._members()
        if self._is_cosmos or not members.listed:
            return
        foreign_keys = [key for listed in members.listed.values() for key in listed.foreign_keys]
        try:
            with self._specs.beside() as backup:
                keep_foreign_keys(backup, self._specs.name, foreign_keys, utc_now())
        except BackupError as error:
            event(
                "set.foreign_keys_not_kept", level=logging.WARNING, set=self._specs.name, error=error, hint=error.hint
            )

    def add(self, foreign_key: ForeignKey, target: str) -> None:
        """As `stores.add_foreign_key`, in the database of the connection string `target`."""
        add_foreign_key(self._specs.target(target), foreign_key, self._specs.limits)
