"""The secondary indexes of a table, and those that a backup's table gets like its source's. Drops none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from backup.stores.sql.engines.secondary_indexes import odd_kind
from backup.stores.sql.engines.tables import TableName, whole_schema
from backup.stores.values import IndexPlan, SecondaryIndex

if TYPE_CHECKING:
    from backup.stores.sql.table import TableShape

_OF_THE_APP = re.compile(r"_bak[0-9a-f]{8}")
_NAME_BYTES = 40


def index_plan(
    in_source: Sequence[Mapping[str, Any]],
    in_backup: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    key: Collection[str],
    place: str,
) -> IndexPlan:
    """What the backup lacks of its source's indexes, and what it cannot get. `in_source` and `in_backup` are as
    `Dialect.indexes` returns them, `columns` the source's copied columns with their names in the backup, `key` the
    backup's key, `place` its table."""
    existing = {tuple(index["column_names"]) for index in in_backup if index["column_names"]} | {tuple(key)}
    wanted: set[tuple[str, ...]] = set()
    missing, left_out = list[SecondaryIndex](), dict[str, str]()
    for index in in_source:
        if reason := _reason_against(index, columns):
            left_out[str(index["name"])] = reason
            continue
        names = tuple(columns[name] for name in index["column_names"])
        if names not in existing | wanted:
            missing.append(SecondaryIndex(_name(str(index["name"]), place, names), names))
        wanted.add(names)
    gone = [
        str(index["name"])
        for index in in_backup
        if _OF_THE_APP.fullmatch(str(index["name"])[-12:]) and tuple(index["column_names"]) not in wanted
    ]
    return IndexPlan(missing, left_out, gone)


def shared_columns(source: TableShape, backup: TableShape) -> Mapping[str, str]:
    """The source's copied columns that the backup has, with their names there."""
    return {column.name: copy.name for column in source.copied if (copy := backup.find(column.name)) is not None}


def _reason_against(index: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    if None in index["column_names"]:
        return "it is over an expression"
    if absent := [name for name in index["column_names"] if name not in columns]:
        return f"the column {absent[0]} is not copied"
    return odd_kind(index)


def _name(source_name: str, place: str, columns: Sequence[str]) -> str:
    """A name that no other index has: on some servers names are those of a whole schema, and long ones are cut."""
    source_name = re.sub(f"{_OF_THE_APP.pattern}$", "", source_name)  # a copy of a copy
    digest = sha256("\n".join((place, source_name, *columns)).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    start = source_name.encode("utf-8", "ignore")[:_NAME_BYTES].decode("utf-8", "ignore")
    return f"{start}_bak{digest}"


def creation(table: TableName, index: SecondaryIndex) -> sa.schema.CreateIndex:
    """The statement that makes the index."""
    columns = [sa.Column(name, sa.Integer) for name in index.columns]
    sa.Table(table.name, sa.MetaData(), *columns, schema=whole_schema(table.schema))
    return sa.schema.CreateIndex(sa.Index(index.name, *columns))
