"""The two tables of a service that a look takes with others, and what is known of them from the look before.

All of it follows from the service, and from what the catalogues of both sides say. While these stay as they are,
nothing is worked out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backup.core.errors import BackupError
from backup.runs.upgrade import OWN_NAMES
from backup.services.service import SyncService
from backup.services.spec import ServiceSpec
from backup.stores import Limits, OnNewColumn, Store
from backup.stores.sides import open_store
from backup.stores.values import Place
from backup.verbs.schema import notes_of

if TYPE_CHECKING:
    from backup.stores.sql.engines.described import Described
    from backup.stores.sql.engines.tables import TableName
    from backup.stores.sql.many_tables import AskedTable, ManyTables

_REMEMBERED_AT_MOST = 2_000


class SetSides(NamedTuple):
    """The databases of a set."""

    source: ManyTables
    backup: ManyTables


class Both(NamedTuple):
    """What the catalogues say of a service's two tables."""

    source: Described
    backup: Described


class Asked(NamedTuple):
    """Two tables that have the columns that they should have, as they are asked, and what a run of them notes."""

    source: AskedTable
    backup: AskedTable
    notes: tuple[str, ...]


class TablePair(NamedTuple):
    """A service's tables: where they are, their names there, and how they are asked if they are `described` so and new
    columns are treated so."""

    spec: ServiceSpec
    source: Place
    backup: Place
    source_name: TableName
    backup_name: TableName
    described: Both | None = None
    on_new_column: OnNewColumn | None = None
    asked: Asked | None = None


_remembered: dict[str, TablePair] = {}
"""The pairs of this process whose tables could be asked, by their services. The one that was made last is at the end.
"""


def pair_of(service: SyncService, sides: SetSides, limits: Limits) -> TablePair | None:
    """The service's tables; None if only a run can say what is wrong with their places. Asks nobody. Raises ConfigError
    as `open_store`."""
    pair = _remembered.get(service.name)
    if pair is None or pair.spec != service.spec:
        source, backup = _opened(service.spec, sides, limits)
        names = sides.source.name_of(source), sides.backup.name_of(backup)
        pair = TablePair(service.spec, source.place, backup.place, *names)
    is_own_table = pair.backup.name.lower() in OWN_NAMES
    return None if is_own_table or service.may_share(pair.source, pair.backup) else pair


def asked_tables(
    pair: TablePair, sides: SetSides, described: Both, on_new_column: OnNewColumn, limits: Limits
) -> Asked | None:
    """How the tables are asked, if they have the columns that they should have. Else None: then a run has something to
    do, or to say. May ask the backup for its collations."""
    if (pair.described, pair.on_new_column) == (described, on_new_column):
        return pair.asked
    try:
        drift, source, backup = sides.backup.matched(*_opened(pair.spec, sides, limits), *described, on_new_column)
    except BackupError:
        return None
    if not drift.is_followed:
        return None
    asked = Asked(source, backup, tuple(notes_of(drift)))
    _remembered.pop(pair.spec.name, None)
    for oldest in [*_remembered][: max(0, len(_remembered) + 1 - _REMEMBERED_AT_MOST)]:
        _remembered.pop(oldest, None)
    _remembered[pair.spec.name] = pair._replace(described=described, on_new_column=on_new_column, asked=asked)
    return asked


def _opened(spec: ServiceSpec, sides: SetSides, limits: Limits) -> tuple[Store, Store]:
    return (
        open_store(spec.source, spec.rules, limits, sides.source),
        open_store(spec.backup, spec.rules, limits, sides.backup),
    )
