"""A side of a service as the settings describe it, and what opens it. A driver is imported only then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from backup.core.errors import BackupError, ConfigError, NotInitialized, SourceMissing
from backup.core.model import SideName
from backup.core.retry import Retry
from backup.core.suggestions import subject
from backup.stores.base import Store
from backup.stores.listing import ForeignKey, Listed, PassedOver
from backup.stores.values import Limits, Rules

if TYPE_CHECKING:
    from backup.stores.cosmos.access import CosmosAccess
    from backup.stores.sql.access import SqlAccess
    from backup.stores.sql.engines import Dialect
    from backup.stores.sql.engines.snapshot import SnapshotReads
    from backup.stores.sql.many_tables import ManyTables
    from backup.stores.sql.source_snapshot import SourceSnapshot

SideRole = SideName | Literal["target place"]
"""The target place is another place that a restore writes to. It takes the role of the source."""


@dataclass(frozen=True)
class Side:
    """One side of a service as the settings describe it. Errors name the prefix `setting`, or a place in backup.toml
    if the service is `of_set`. The connection string is empty if the settings do not mention the side."""

    service: str
    role: SideRole
    setting: str
    connection_string: str = field(repr=False)
    table: str | None = None
    default_table: str = ""
    container: str | None = None
    database: str | None = None
    emulator_hosts: frozenset[str] = frozenset()
    of_set: bool = False

    def named(self, part: str) -> str:
        """The name of the setting with this last part, for messages."""
        return self.setting if self.of_set or self.role == "target place" else f"{self.setting}__{part}"

    @property
    def name(self) -> str:
        """What messages call it: `source of customer`."""
        return f"{self.role} of {self.service}"

    @property
    def is_cosmos(self) -> bool:
        """Whether it is an account of Cosmos DB; else it is a SQL database."""
        return "accountendpoint" in self.connection_string.lower()

    @property
    def missing(self) -> type[BackupError]:
        """The error for a database, table or container that does not exist."""
        return NotInitialized if self.role == "backup" else SourceMissing


def open_store(
    side: Side,
    rules: Rules,
    limits: Limits,
    tables: ManyTables | None = None,
    snapshot: SnapshotReads | None = None,
) -> Store:
    """The store of one side. It connects when first used. With `tables`, which are of the same database, it shares
    their connections, and reads where they do. With a `snapshot` of a source's SQL database, it reads there.

    Without `side.table`, the table is `side.default_table`; on SQLite without its schema. Raises ConfigError for a
    connection string that cannot be read, or settings that do not fit it.
    """
    rules = _rules_of(side, rules)
    if side.is_cosmos:
        return _open_cosmos(side, rules, limits)
    from backup.stores.sql.store import SqlStore

    shared = tables.dialect if tables is not None else None
    dialect = shared or dialect_of(side, limits)
    default = side.default_table.rpartition(".")[2] if dialect.default_schema is None else side.default_table
    if not (table := side.table or default):
        raise ConfigError(f"Setting {side.named('Table')} is missing; a SQL side needs it.")
    store = SqlStore(dialect, table, rules, limits, side.name, side.missing)
    store.access.snapshot = snapshot if tables is None else tables.snapshot
    return store


def _rules_of(side: Side, rules: Rules) -> Rules:
    """The service's rules, as they count on this side."""
    if side.role == "backup":
        return replace(rules, is_source=False).of_backup
    if side.role == "target place":  # it gets the columns that the version and the filter need from its shape
        rules = replace(rules, masking=None, transform=None, required={})
    return replace(rules, is_source=side.role == "source", keeps_deleted=False)


def open_tables(side: Side, limits: Limits, snapshot: SnapshotReads | None = None) -> ManyTables:
    """Many tables of one SQL database, asked together; with a `snapshot`, there. It connects when first used. Raises
    ConfigError for a connection string that cannot be read."""
    from backup.stores.sql.many_tables import SECONDS_FOR_MANY, ManyTables

    seconds = min(limits.max_call_seconds, SECONDS_FOR_MANY)
    access = _access_of(side, dialect_of(side, limits), Retry(max_attempts=1), seconds)
    access.snapshot = snapshot
    return ManyTables(access, limits)


def begin_snapshot(side: Side, tables: list[str], limits: Limits) -> SourceSnapshot:
    """Begins to hold the side's SQL database as it is at this moment, so that these tables can be read as of it. Close
    it on every way.

    Raises ConfigError, with what to do, for a database that cannot be held; else what a store raises. Then nothing is
    held.
    """
    from backup.stores.sql.source_snapshot import begun

    access = open_database(side, limits)
    try:
        return begun(access, tables)
    except BaseException:
        access.close()
        raise


def list_places(side: Side, limits: Limits) -> list[Listed]:
    """The tables and views, or the containers, of the side's database, in the order of their names. Costs a handful of
    statements for all.

    Leaves out what belongs to the server. Raises what a store raises; NotInitialized for a backup's database that does
    not exist, SourceMissing for a source's.
    """
    if side.is_cosmos:
        with closing(_cosmos_access(side, limits)) as account:
            return [Listed(container) for container in sorted(account.containers())]
    with closing(open_database(side, limits)) as access:
        for attempt in access.attempts("list the tables"):
            with attempt as cx:
                tables = list(access.dialect.list_tables(cx))
    return sorted(tables, key=lambda table: table.name)


def list_passed_over(side: Side, limits: Limits) -> list[PassedOver]:
    """What `list_places` leaves out of the side's database that people may take for tables. Costs a handful of
    statements; nothing for Cosmos DB. Raises what a store raises."""
    if side.is_cosmos:
        return []
    with closing(open_database(side, limits)) as access:
        for attempt in access.attempts("list what is left out"):
            with attempt as cx:
                left_out = list(access.dialect.list_left_out(cx))
    return left_out


def write_triggers(side: Side, limits: Limits) -> list[tuple[str, str, str]]:
    """The triggers in the side's SQL database that an insert or update fires: schema (empty where there are none),
    table, name. Costs one statement. Raises what a store raises."""
    with closing(open_database(side, limits)) as access:
        for attempt in access.attempts("list the triggers"):
            with attempt as cx:
                triggers = [tuple(map(str, row)) for row in cx.execute(access.dialect.write_triggers)]
    return [(schema, table, name) for schema, table, name in triggers]


def add_foreign_key(side: Side, foreign_key: ForeignKey, limits: Limits) -> None:
    """Adds the foreign key to its table in the side's SQL database, unless the table has one of this name. Not for
    SQLite, which cannot.

    Raises what a store raises; ConstraintRefused when rows do not fit it. Cost: the server looks at every row.
    """
    from backup.stores.sql.constraints import constraint_of
    from backup.stores.sql.making import make_constraint

    with closing(open_database(side, limits)) as access:
        make_constraint(access, constraint_of(foreign_key))


def open_database(side: Side, limits: Limits) -> SqlAccess:
    """The access to the side's SQL database, for what is about no table. It connects when first used; `close` it.
    Raises ConfigError for a connection string that cannot be read."""
    return _access_of(side, dialect_of(side, limits), limits.retry, limits.max_call_seconds)


def _access_of(side: Side, dialect: Dialect, retry: Retry, call_seconds: float) -> SqlAccess:
    from backup.stores.sql.access import SqlAccess

    label = f"{side.name} ({dialect.product} {dialect.location})"
    return SqlAccess(dialect, retry, side.missing, label, call_seconds)


@contextmanager
def kept_open(sides: Iterable[Side], limits: Limits) -> Iterator[None]:
    """Inside, what was connected to these sides' databases stays so from one use to the next, also to a SQLite file.
    Connects nowhere itself."""
    with ExitStack() as stack:
        for side in sides:
            if not side.is_cosmos:
                with suppress(BackupError):  # whoever connects will say what is wrong
                    dialect = dialect_of(side, limits, connections=1)
                    stack.callback(dialect.close)
                    _ = dialect.engine  # leases the pool
        yield


def dialect_of(side: Side, limits: Limits, connections: int | None = None) -> Dialect:
    """The dialect of a side that is a SQL database, for as many `connections` at once as a run needs. It connects when
    first used. Raises ConfigError for a connection string that cannot be read."""
    from backup.stores.sql.engines import open_dialect

    return open_dialect(
        side.connection_string,
        side.named("ConnectionString"),
        default_database=side.database,
        # For the run's own thread, for its heartbeat, and one to spare.
        connections=limits.parallelism + 3 if connections is None else connections,
        call_seconds=limits.max_call_seconds,
        read_only_by_default=side.role == "source",
    )


def _open_cosmos(side: Side, rules: Rules, limits: Limits) -> Store:
    for value, part in ((side.database, "DatabaseName"), (side.container, "ContainerName")):
        if not value:
            raise ConfigError(f"Setting {side.named(part)} is missing; a Cosmos DB side needs it.")
    if rules.modified_by and rules.is_source and not side.of_set:
        raise ConfigError(
            f"Setting {side.named('ModifiedBy')} is for tables: Cosmos DB knows by itself what was written lately.",
            hint="Remove the setting.",
        )
    access = _cosmos_access(side, limits)
    from backup.stores.cosmos.store import CosmosStore

    role: SideName = "backup" if side.role == "backup" else "source"
    return CosmosStore(access, side.container or "", rules, limits, role)


def _cosmos_access(side: Side, limits: Limits) -> CosmosAccess:
    """The access to the database of a side that is a Cosmos DB account. It connects when first used. Raises ConfigError
    for a connection string that cannot be read, or that leads to a server without TLS."""
    from backup.stores.connection import Cosmos, parse_connection
    from backup.stores.secure import check_cosmos

    setting = side.named("ConnectionString")
    where = parse_connection(side.connection_string, setting)
    if not isinstance(where, Cosmos):
        raise ConfigError(f"{subject(setting)} is not a Cosmos DB connection string.")
    check_cosmos(where.endpoint, token=where.key is None, emulator_hosts=side.emulator_hosts, setting=setting)
    from backup.stores.cosmos.access import CosmosAccess

    place = f"container {side.database}/{side.container}" if side.container else f"database {side.database}"
    label = f"{side.name} (Cosmos DB {where.endpoint.rstrip('/')}, {place})"
    return CosmosAccess(
        where,
        side.database or "",
        limits.retry,
        side.missing,
        label,
        emulator_hosts=side.emulator_hosts,
        units_per_second=limits.max_request_units_per_second,
        max_call_seconds=limits.max_call_seconds,
    )
