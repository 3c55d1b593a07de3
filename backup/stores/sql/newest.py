"""The newest entry of each group of one of the app's own tables, with facts about its group, in one statement."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.stores.sibling import Group, Groups

_VALUES = "values"


def groups_of(
    cx: sa.Connection, table: sa.Table, groups: Groups, values: list[str], clock: Any, fields: tuple[str, ...]
) -> list[Group]:
    """The groups whose field `by` has one of these values; their newest entries with these fields alone. A group with
    two newest entries is there twice."""
    newest_groups, width = [], len(fields)
    for row in cx.execute(_query(table, groups, clock, fields), {_VALUES: values}).all():
        is_there, by, apart, counted, at, *highest = row[width:]
        entry = dict(zip(fields, row, strict=False)) if is_there is not None else None
        newest_groups.append(Group(by, apart, dict(zip(groups.highest, highest, strict=True)), counted, entry, at))
    return newest_groups


@lru_cache(maxsize=16)
def _query(table: sa.Table, groups: Groups, clock: Any, fields: tuple[str, ...]) -> sa.Select[Any]:
    c = table.c
    order = c[groups.order]
    counts = sa.case((c[groups.but[0]] != groups.but[1], order))
    has = sa.case((c[groups.counted[0]] == groups.counted[1], 1), else_=0)
    facts = (
        sa.select(
            c[groups.by].label("by"),
            c[groups.apart].label("apart"),
            sa.func.max(counts).label("newest"),
            sa.func.sum(has).label("counted"),
            *(sa.func.max(c[name]).label(f"highest_{name}") for name in groups.highest),
        )
        .where(c[groups.by].in_(sa.bindparam(_VALUES, expanding=True, type_=c[groups.by].type)))
        .group_by(c[groups.by], c[groups.apart])
        .subquery("facts")
    )
    of_group = sa.and_(c[groups.by] == facts.c.by, c[groups.apart] == facts.c.apart, order == facts.c.newest)
    return sa.select(
        *(c[name] for name in fields),
        c[groups.by],
        facts.c.by,
        facts.c.apart,
        facts.c.counted,
        sa.null() if clock is None else clock,
        *(facts.c[f"highest_{name}"] for name in groups.highest),
    ).select_from(facts.outerjoin(table, of_group))
