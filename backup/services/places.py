"""The two sides of a service, as the settings name them. Refuses sides that are one place.

What the servers say of themselves decides that, not what the settings call the sides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from backup.core.errors import BackupError, ConfigError
from backup.core.log import event
from backup.core.retry import Retry
from backup.runs.upgrade import OWN_NAMES
from backup.services.spec import ServiceSpec
from backup.stores import Limits, Rules, Store
from backup.stores.sides import Side, open_store
from backup.stores.values import Place
from backup.verbs.restore import exists

if TYPE_CHECKING:
    from backup.stores.sql.engines.snapshot import SnapshotReads

TARGET = "--to"
"""The option that names the place that a restore writes to instead of the source."""

_SOURCE_SECONDS = 10.0  # at most, for the question whether a target is the source


class Places:
    """The sides of one service, and the sides of all other configured services."""

    def __init__(self, spec: ServiceSpec, other_specs: Sequence[ServiceSpec], limits: Limits) -> None:
        """Raises ConfigError when a connection string of the service is missing."""
        spec.check()
        self._rules, self._limits = spec.rules, limits
        self._source, self._backup = spec.source, spec.backup
        self._other_sources = [(other.source, other.rules) for other in other_specs if other.source.connection_string]
        self._other_backups = [(other.backup, other.rules) for other in other_specs if other.backup.connection_string]
        backups = [other.backup for other in other_specs]
        self.other_tables = [side.container or side.table or side.default_table for side in backups]
        """The tables or containers that the settings name for the other services' backups."""

    @contextmanager
    def stores(self, target: str | None = None, snapshot: SnapshotReads | None = None) -> Iterator[tuple[Store, Store]]:
        """Source and backup, closed at the end. With the connection string `target`, the first is that place and not
        the source. With a `snapshot` the source is read there. Connects nowhere yet.

        Raises ConfigError when the sides are of different products, or when the settings spell the same place twice.
        """
        source_side = self._source
        if target is not None:
            source_side = replace(source_side, role="target place", setting=TARGET, connection_string=target)
        source = open_store(source_side, self._rules, self._limits, snapshot=snapshot)
        backup = open_store(self._backup, self._rules, self._limits)
        if source.place.kind != backup.place.kind:
            raise ConfigError(
                f"{source_side.setting} is {source.place.kind} and {self._backup.setting} is {backup.place.kind}. An "
                "exact copy needs two sides of one kind. Nothing was changed.",
                hint="Give both sides the same product.",
            )
        _refuse_own_name(backup, self._backup.setting)
        # Two tables whose names differ only in case count as one: nobody needs both.
        if source.place.location.lower() == backup.place.location.lower():
            raise _same(source, source_side.setting, self._backup.setting)
        try:
            yield source, backup
        finally:
            source.close()
            backup.close()

    def try_to_tell_apart(self, source: Store, backup: Store, *, is_target: bool = False) -> None:
        """Does what `tell_apart` does, with retries."""
        action = f"tell two places apart: {source.place.label}, {backup.place.label}"
        for attempt in self._limits.retry.attempts(action):
            with attempt:
                self.tell_apart(source, backup, is_target=is_target)

    def tell_apart(self, source: Store, backup: Store, *, is_target: bool = False) -> None:
        """Raises ConfigError when source and backup are one place. A backup may not be a side of another service,
        and a source may not be the backup of another service: it raises ConfigError for these too.

        Asks the servers, once; raises the errors of the stores. `is_target`: `source` is the target of a restore, which
        may not be the source either.
        """
        source_setting = TARGET if is_target else self._source.setting
        if source.catalog.is_same_place(backup):
            raise _same(source, source_setting, self._backup.setting)
        self._refuse_shared(backup, self._backup.setting, [*self._other_sources, *self._other_backups])
        self._refuse_shared(source, source_setting, self._other_backups)
        if is_target and self._source.connection_string and exists(source):
            # Masked values may go into another place, and what is deleted there counts in no week. A place that is
            # still to be made is not the source. That may be gone, so nobody waits long for it.
            limits = replace(self._limits, max_call_seconds=_SOURCE_SECONDS, retry=Retry(max_attempts=1))
            self._refuse_shared(source, TARGET, [(self._source, self._rules)], limits)

    def may_share(self, place: Place) -> bool:
        """Whether a side of another service has a table or container of the same name. Asks nobody."""
        return any(_may_be_called(side, place.name) for side, _ in (*self._other_sources, *self._other_backups))

    def _refuse_shared(
        self, store: Store, setting: str, other_sides: Sequence[tuple[Side, Rules]], limits: Limits | None = None
    ) -> None:
        """Asks only sides whose table or container has the same name. Logs a side that does not answer: nobody can
        compare it."""
        for side, rules in other_sides:
            if not _may_be_called(side, store.place.name):
                continue
            other = open_store(side, rules, limits or self._limits)
            try:
                if (
                    other.place.kind == store.place.kind
                    and other.place.name.lower() == store.place.name.lower()
                    and store.catalog.is_same_place(other)
                ):
                    raise _same(store, setting, side.setting, _INTO_SOURCE if side is self._source else _ANOTHER)
            except ConfigError:
                raise
            except BackupError as error:
                event("place.not_compared", level=logging.WARNING, setting=setting, other=side.setting, error=error)
            finally:
                other.close()


def _refuse_own_name(backup: Store, setting: str) -> None:
    if backup.place.name.lower() in OWN_NAMES:
        raise ConfigError(
            f"{setting} names {backup.place.name}, one of the app's own tables beside each backup. Nothing was "
            "changed.",
            hint="Give the backup another table or container. In a set, name this one in `exclude`.",
        )


def _may_be_called(side: Side, name: str) -> bool:
    """Whether the settings may spell this name for the side's table or container.

    It keeps the app from opening the stores of a hundred services.
    """
    spelled = [text.lower() for text in (side.table, side.default_table, side.container) if text]
    return any(name.lower() in text or not {*text}.isdisjoint('[]"') for text in spelled)


_ANOTHER = (
    "Name another database, table or container. A backup must not lie in its own source, nor on the primary of a "
    "source that is a standby. Two services in one table delete each other's records."
)
_INTO_SOURCE = f"Name another database. To restore into the source, leave {TARGET} out."


def _same(store: Store, setting: str, other_setting: str, hint: str = _ANOTHER) -> ConfigError:
    return ConfigError(
        f"{setting} and {other_setting} name the same place: {store.place.location}. Nothing was changed.", hint=hint
    )
