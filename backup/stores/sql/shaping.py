"""Makes the shape of a table of what the server's catalogue says and the service's rules ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backup.core.errors import ConfigError, SchemaMismatch
from backup.stores.sql.declared import DELETED_AT, own_column, time_type
from backup.stores.sql.engines import Dialect
from backup.stores.sql.engines.column import Column, named_column
from backup.stores.sql.engines.described import Described
from backup.stores.sql.engines.prepared import TABLES_KEPT
from backup.stores.sql.filters import filter_values
from backup.stores.sql.masked import SOURCE_STAMP, MaskedColumns
from backup.stores.sql.table import TableShape
from backup.stores.sql.transformed import TransformedColumns
from backup.stores.values import Rules


def described_shape(dialect: Dialect, rules: Rules, described: Described, label: str) -> TableShape:
    """The shape of a table whose columns were read from the catalogue. Raises the error of the description,
    SchemaMismatch if the table has no usable key, and ConfigError as `filter_values` and for a filter with too many
    values.

    A table that the catalogue describes as before, and whose rules have not changed, has the shape that was made then.
    """
    if described.error is not None:
        raise described.error
    filter_text = repr(rules.where)  # for Python True, 1 and 1.0 are equal; a column of texts tells them apart
    made_of = type(dialect), dialect.stamp_type, rules, filter_text, described.table, described.columns
    kept = _kept.get(label)
    if kept is None or kept[0] != made_of:
        kept = made_of, _made_shape(dialect, rules, described, label)
        if not (rules.masking or rules.transform):  # these learn from the records of a run
            for oldest in [*_kept][: max(0, len(_kept) + 1 - TABLES_KEPT)]:
                _kept.pop(oldest, None)
            _kept[label] = kept
    shape = kept[1].anew()
    shape.rows_at_most = described.rows_at_most
    return shape


_kept: dict[str, tuple[tuple[object, ...], TableShape]] = {}
"""By the labels of tables: what their shapes were made of, and the shapes, which no run uses itself."""


def _made_shape(dialect: Dialect, rules: Rules, described: Described, label: str) -> TableShape:
    columns = described.columns or []
    key = sorted((column.key_position, column.name) for column in columns if column.key_position)
    primary = tuple(name for _, name in key)
    key_names = primary or _named_key(columns, rules)
    if not key_names:
        raise SchemaMismatch(
            f"The {label} has no primary key.",
            hint="Only a table with a primary key can be backed up, or one of a set whose key backup.toml names.",
        )
    taken = rules.taken([column.name for column in columns])
    needed_columns = filter(None, (named_column(columns, name) for name in (*key_names, *rules.version)))
    if needed := [column.name for column in needed_columns if column.name not in taken]:
        raise ConfigError(
            f"The {label} needs the column {needed[0]} for its key or its version, and its list of columns leaves"
            " it out. Nothing was changed.",
            hint="Correct columns in backup.toml.",
        )
    for column in columns:
        if column.name in key_names and not column.sortable:
            raise SchemaMismatch(
                f"The {label} has the key column {column.name}, whose type or collation has an order of its own.",
                hint="Only a key of the server's built-in types can be backed up. On SQLite a key that is not the "
                "primary one has to compare texts by their bytes (BINARY).",
            )
    rules = replace(rules, where=filter_values(columns, rules, label, plain=dialect.in_process))
    copied = [column for column in columns if column.name in taken]
    left_out = [column for column in columns if column.name not in taken]
    masked: MaskedColumns | None = None
    own_stamp = own_column(columns, SOURCE_STAMP, dialect.stamp_type.declared, dialect)
    time_declared = time_type(dialect).declared
    own_deleted = own_column(columns, DELETED_AT, time_declared, dialect) if rules.keeps_deleted else None
    if rules.masking and rules.is_source:
        masked = MaskedColumns.checked(rules, copied, key_names, label, dialect.kind)
        # A masked value may be nothing, also where the table allows no NULL.
        copied = [replace(column, nullable=True) if column.name in masked.names else column for column in copied]
    elif rules.masking:
        masked = MaskedColumns(rules.masking, copied, dialect.kind, rules.transform)
    transformed = None
    if rules.transform is not None and rules.is_source:
        transformed = TransformedColumns(rules.transform, copied, key_names, label)
    own = own_stamp, own_deleted, transformed
    shape = TableShape(copied, key_names, rules, described.table, label, left_out, masked, *own)
    if shape.filter_parameters > dialect.max_parameters // 2:
        raise ConfigError(
            f"The filter of the {label} has {shape.filter_parameters:,} values, and a statement on {dialect.product} "
            f"takes about {dialect.max_parameters:,}, of which keys need a part. Nothing was changed.",
            hint="Filter by a range, or by a condition in SQL (where_sql) that names a table of these values.",
        )
    shape.key_may_repeat = rules.key_may_repeat and not primary
    return shape


def _named_key(columns: Sequence[Column], rules: Rules) -> tuple[str, ...]:
    """The key's columns that the rules name, as the table spells them; empty if it lacks one of them."""
    key = [named_column(columns, name) for name in rules.key]
    return tuple(column.name for column in key if column is not None) if all(key) else ()
