"""The two sides of a service, as the settings name them; whether two of all the sides are one place.

That is told by what their servers say of themselves, not by what the settings call them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from backup.core.errors import BackupError, ConfigError
from backup.core.log import event
from backup.runs.upgrade import OWN_NAMES
from backup.services.spec import ServiceSpec
from backup.stores import Limits, Rules, Side, Store, open_store

TARGET = "--to"
"""What the place that a restore writes to instead of the source is set by."""


class Places:
    """The sides of one service, and those of the other services that the settings configure."""

    def __init__(self, spec: ServiceSpec, others: Sequence[ServiceSpec], limits: Limits) -> None:
        """Raises ConfigError when a connection string of the service is missing."""
        spec.check()
        self._rules, self._limits = spec.rules, limits
        self._source, self._backup = spec.source, spec.backup
        self._other_sources = [(other.source, other.rules) for other in others if other.source.connection_string]
        self._other_backups = [(other.backup, other.rules) for other in others if other.backup.connection_string]
        backups = [other.backup for other in others]
        self.other_tables = [side.container or side.table or side.default_table for side in backups]
        """The tables or containers that the settings name for the other services' backups."""

    @property
    def backup(self) -> Side:
        """The service's backup."""
        return self._backup

    @contextmanager
    def stores(self, target: str | None = None) -> Iterator[tuple[Store, Store]]:
        """Source and backup, closed at the end; the place of the connection string `target` instead of the source,
        which then has no part in it. Connects nowhere.

        Raises ConfigError for two sides of different products, or of settings that spell the same place.
        """
        first = self._source
        if target is not None:
            first = replace(first, role="target place", setting=TARGET, connection_string=target)
        source, backup = (open_store(side, self._rules, self._limits) for side in (first, self._backup))
        mine, theirs = source.place, backup.place
        if mine.kind != theirs.kind:
            raise ConfigError(
                f"{first.setting} is {mine.kind} and {self._backup.setting} is {theirs.kind}; an exact copy needs "
                "two of one kind.",
                hint="Give both sides the same product.",
            )
        _refuse_own_name(backup, self._backup.setting)
        if mine.location.lower() == theirs.location.lower():  # no two tables are worth telling apart by case alone
            raise _same(source, first.setting, self._backup.setting)
        try:
            yield source, backup
        finally:
            source.close()
            backup.close()

    def try_to_tell_apart(self, source: Store, backup: Store, *, is_target: bool = False) -> None:
        """As `tell_apart`, with retries."""
        what = f"tell two places apart: {source.place.label}, {backup.place.label}"
        for attempt in self._limits.retry.attempts(what):
            with attempt:
                self.tell_apart(source, backup, is_target=is_target)

    def tell_apart(self, source: Store, backup: Store, *, is_target: bool = False) -> None:
        """Raises ConfigError for sides that are one place, or one with a side of another service that a backup may not
        be; what the stores raise. One try. `is_target`: the first is the target of a restore.
        """
        first = TARGET if is_target else self._source.setting
        if source.catalog.is_same_place(backup):
            raise _same(source, first, self._backup.setting)
        self._refuse_shared(backup, self._backup.setting, [*self._other_sources, *self._other_backups])
        self._refuse_shared(source, first, self._other_backups)

    def _refuse_shared(self, store: Store, setting: str, others: Sequence[tuple[Side, Rules]]) -> None:
        """Sides whose tables or containers have other names are not asked. One that does not answer cannot be compared:
        that is logged."""
        for side, rules in others:
            if not _may_be_called(side, store.place.name):
                continue
            other = open_store(side, rules, self._limits)
            try:
                if (
                    other.place.kind == store.place.kind
                    and other.place.name.lower() == store.place.name.lower()
                    and store.catalog.is_same_place(other)
                ):
                    raise _same(store, setting, side.setting)
            except ConfigError:
                raise
            except BackupError as error:
                event("place.not_compared", level=logging.WARNING, setting=setting, other=side.setting, error=error)
            finally:
                other.close()


def _refuse_own_name(backup: Store, setting: str) -> None:
    if backup.place.name.lower() in OWN_NAMES:
        raise ConfigError(
            f"{setting} names {backup.place.name}, which is a name of the app's own beside each backup.",
            hint="Give the backup another table or container.",
        )


def _may_be_called(side: Side, name: str) -> bool:
    """Whether the side's table or container may have this name, by how the settings spell it: of a hundred services
    few have to be opened for a closer look."""
    spelled = [text.lower() for text in (side.table, side.default_table, side.container) if text]
    return any(name.lower() in text or not {*text}.isdisjoint('[]"') for text in spelled)


def _same(store: Store, setting: str, other_setting: str) -> ConfigError:
    return ConfigError(
        f"{setting} and {other_setting} name the same place: {store.place.location}. Nothing was changed.",
        hint="A backup beside nothing but itself is none, and two services in one table delete each other's records:"
        " name another database, table or container.",
    )
