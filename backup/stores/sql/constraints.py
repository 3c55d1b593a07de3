"""A foreign key as a statement declares it. Runs nothing."""

from __future__ import annotations

import sqlalchemy as sa

from backup.stores.listing import ForeignKey
from backup.stores.sql.declared import split_name


def constraint_of(foreign_key: ForeignKey) -> sa.ForeignKeyConstraint:
    """Returns the foreign key as a constraint of its table. The tables have only the columns that it names."""
    names: dict[str, dict[str, None]] = {foreign_key.table: {}, foreign_key.referred: {}}  # which may be the same
    names[foreign_key.table] |= dict.fromkeys(foreign_key.columns)
    names[foreign_key.referred] |= dict.fromkeys(foreign_key.referred_columns)
    metadata, declared = sa.MetaData(), {}
    for spelled, column_names in names.items():
        schema, name = split_name(spelled)
        declared[spelled] = sa.Table(
            _quoted(name),
            metadata,
            *(sa.Column(_quoted(column), sa.Integer) for column in column_names),
            schema=None if schema is None else _quoted(schema),
        )
    constraint = sa.ForeignKeyConstraint(
        [declared[foreign_key.table].c[column] for column in foreign_key.columns],
        [declared[foreign_key.referred].c[column] for column in foreign_key.referred_columns],
        name=_quoted(foreign_key.name),
        ondelete=_action(foreign_key.on_delete),
        onupdate=_action(foreign_key.on_update),
        deferrable=foreign_key.deferrable or None,
        initially="DEFERRED" if foreign_key.deferred else None,
        match="FULL" if foreign_key.match_full else None,
    )
    declared[foreign_key.table].append_constraint(constraint)
    return constraint


def _action(action: str) -> str | None:
    return None if action == "NO ACTION" else action


def _quoted(name: str) -> sa.quoted_name:
    return sa.quoted_name(name, quote=True)
