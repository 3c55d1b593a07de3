"""Tables and containers behind one protocol, opened by their connection strings; drivers are imported only then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from backup.core.errors import BackupError, ConfigError, NotInitialized, SourceMissing
from backup.core.model import SideName
from backup.stores.base import Accept, Fence, Keep, Store, stamps_in
from backup.stores.codecs import CopyNote
from backup.stores.sibling import LongText, Shape, Sibling
from backup.stores.values import Drift, Limits, OnNewColumn, Rules, Written

__all__ = [
    "Accept",
    "CopyNote",
    "Drift",
    "Fence",
    "Keep",
    "Limits",
    "LongText",
    "OnNewColumn",
    "Rules",
    "Shape",
    "Sibling",
    "Side",
    "SideName",
    "Store",
    "Written",
    "open_store",
    "stamps_in",
]


SideRole = SideName | Literal["target place"]
"""The target place is another place that a restore writes to. It takes the role of the source."""


@dataclass(frozen=True)
class Side:
    """One side of a service as the settings describe it. Errors name the prefix `setting`. The connection string is
    empty if the settings do not mention the side."""

    service: str
    role: SideRole
    setting: str
    connection_string: str = field(repr=False)
    table: str | None = None
    default_table: str = ""
    container: str | None = None
    database: str | None = None
    emulator_hosts: frozenset[str] = frozenset()


def open_store(side: Side, rules: Rules, limits: Limits) -> Store:
    """The store of one side. It connects when first used.

    Without `side.table`, the table is `side.default_table`; on SQLite without its schema. Raises ConfigError for a
    connection string that cannot be read, or settings that do not fit it.
    """
    missing: type[BackupError] = NotInitialized if side.role == "backup" else SourceMissing
    name = f"{side.role} of {side.service}"
    setting = side.setting if side.role == "target place" else f"{side.setting}__ConnectionString"
    if "accountendpoint" in side.connection_string.lower():
        return _open_cosmos(side, setting, name, rules, limits, missing)
    from backup.stores.sql.engines import open_dialect
    from backup.stores.sql.store import SqlStore

    dialect = open_dialect(
        side.connection_string,
        setting,
        default_database=side.database,
        connections=limits.parallelism + 3,  # for the run's own thread, for its heartbeat, and one to spare
        call_seconds=limits.max_call_seconds,
        read_only_by_default=side.role == "source",
    )
    default = side.default_table.rpartition(".")[2] if dialect.default_schema is None else side.default_table
    if not (table := side.table or default):
        raise ConfigError(f"Setting {side.setting}__Table is missing; a SQL side needs it.")
    if side.role != "source":  # a backup gets such a column from its first run, a target place from its shape
        rules = replace(rules, required={})
    return SqlStore(dialect, table, rules, limits, name, missing)


def _open_cosmos(
    side: Side, setting: str, name: str, rules: Rules, limits: Limits, missing: type[BackupError]
) -> Store:
    from backup.stores.connection import Cosmos, parse_connection
    from backup.stores.secure import check_cosmos

    for value, name_of_setting in ((side.database, "DatabaseName"), (side.container, "ContainerName")):
        if not value:
            raise ConfigError(f"Setting {side.setting}__{name_of_setting} is missing; a Cosmos DB side needs it.")
    where = parse_connection(side.connection_string, setting)
    if not isinstance(where, Cosmos):
        raise ConfigError(f"Setting {setting} is not a Cosmos DB connection string.")
    check_cosmos(where.endpoint, token=where.key is None, emulator_hosts=side.emulator_hosts, setting=setting)
    from backup.stores.cosmos.access import CosmosAccess
    from backup.stores.cosmos.store import CosmosStore

    label = f"{name} (Cosmos DB {where.endpoint.rstrip('/')}, container {side.database}/{side.container})"
    ceiling = limits.max_request_units_per_second
    access = CosmosAccess(
        *(where, side.database or "", limits.retry, missing, label, side.emulator_hosts, ceiling),
        max_call_seconds=limits.max_call_seconds,
    )
    role: SideName = "backup" if side.role == "backup" else "source"
    return CosmosStore(access, side.container or "", rules, limits, role)
