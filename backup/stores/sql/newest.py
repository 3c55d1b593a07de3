"""The newest entry of each group of one of the app's own tables, with facts about its group, in one statement."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from backup.stores.sibling import Group, Groups

_GROUP, _AT, _VALUES = "group_", "server_time", "values"


def groups_of(cx: sa.Connection, table: sa.Table, groups: Groups, values: list[str], clock: Any) -> list[Group]:
    """The groups whose field `by` has one of these values. A group with two newest entries is there twice."""
    names, found = [column.name for column in table.columns], []
    for row in cx.execute(_query(table, groups, clock), {_VALUES: values}).mappings():
        entry = {name: row[name] for name in names}
        highest = {name: row[f"{_GROUP}{name}"] for name in groups.highest}
        by, apart, counted = (row[f"{_GROUP}{name}"] for name in ("by", "apart", "counted"))
        is_there = entry[groups.by] is not None
        found.append(Group(by, apart, highest, counted, entry if is_there else None, row[_AT]))
    return found


@lru_cache(maxsize=16)
def _query(table: sa.Table, groups: Groups, clock: Any) -> sa.Select[Any]:
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
        table,
        facts.c.by.label(f"{_GROUP}by"),
        facts.c.apart.label(f"{_GROUP}apart"),
        facts.c.counted.label(f"{_GROUP}counted"),
        *(facts.c[f"highest_{name}"].label(f"{_GROUP}{name}") for name in groups.highest),
        (sa.null() if clock is None else clock).label(_AT),
    ).select_from(facts.outerjoin(table, of_group))
