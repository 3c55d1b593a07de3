"""Tables of SQL Server that are more, or less, than rows that a login writes: how its catalogue tells them apart."""

from __future__ import annotations

from backup.core.errors import ConfigError

WITHOUT_KEY = frozenset({"history table", "dropped ledger table", "external table"})
"""Kinds that a set leaves out unless a section names their key: somebody else writes them, and they have none."""

KINDS = """
    (
        SELECT t.object_id, t.kind
        FROM (SELECT 0 AS is_node, 0 AS is_edge, 0 AS ledger_type, 0 AS is_dropped_ledger_table) AS lacking
        CROSS APPLY (
            -- Where the catalogue is older than a column, its name means the zero of `lacking`.
            SELECT object_id, CASE
                WHEN temporal_type = 1 OR ledger_type = 1 THEN 'history table'
                WHEN is_dropped_ledger_table = 1 THEN 'dropped ledger table'
                WHEN is_external = 1 THEN 'external table'
                WHEN is_node = 1 THEN 'node table'
                WHEN is_edge = 1 THEN 'edge table'
            END AS kind
            FROM sys.tables
        ) AS t
        WHERE t.kind IS NOT NULL
    )"""
"""Selects `object_id` and `kind` of the tables that are not plain ones. SQL Server has graphs from 2017 on, and ledgers
from 2022 on."""


def refuse_graph(kind: str | None, table: str) -> None:
    """Raises ConfigError for a table of a graph: no statement reads the numbers that its edges lead to."""
    if kind in ("node table", "edge table"):
        raise ConfigError(
            f"{table} is the {kind} of a graph. It has internal columns that nobody can read, so it cannot be copied.",
            hint="Leave it out by exclude in backup.toml. A view of its own columns can be backed up: name the view's "
            "key in a section.",
        )
