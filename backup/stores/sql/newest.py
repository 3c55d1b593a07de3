"""The newest entry of each group of one of the app's own tables, with facts about its group, in one statement.

An index of the table has the fields by which entries form groups, then their order, then what is counted. So all
entries of a group cost a look at the index; the table itself is asked for few of each, however many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from backup.stores.sibling import Group, Groups

RECENT = 8
"""How many of a group's numbers, from its highest one down, are looked at for its newest entry and its facts."""

_VALUES = "values"


class Head(NamedTuple):
    """The highest `order` of a group, and how many of its entries are counted."""

    last: int | None
    counted: int


def heads_of(cx: sa.Connection, table: sa.Table, groups: Groups, values: list[Any]) -> Mapping[tuple[Any, Any], Head]:
    """The heads of the groups whose field `by` has one of these values, by `by` and `then_by`."""
    rows = cx.execute(_heads_query(table, groups), {_VALUES: values}).all()
    return {(by, then_by): Head(last, counted) for by, then_by, last, counted in rows}


def groups_of(cx: sa.Connection, table: sa.Table, groups: Groups, values: list[Any], clock: Any) -> list[Group]:
    """The groups whose field `by` has one of these values. A group with two newest entries is there twice."""
    names = table.columns.keys()
    newest_groups, width = [], len(names)
    for row in map(tuple, cx.execute(_query(table, groups, clock), {_VALUES: values}).all()):
        is_there, by, then_by, counted, at, *highest = row[width:]
        entry = dict(zip(names, row, strict=False)) if is_there is not None else None
        newest_groups.append(Group(by, then_by, dict(zip(groups.highest, highest, strict=True)), counted, entry, at))
    return newest_groups


def _heads(table: sa.Table, groups: Groups) -> sa.Select[Any]:
    c = table.c
    field, counted = groups.counted
    return (
        sa.select(
            c[groups.by].label("by"),
            c[groups.then_by].label("then_by"),
            sa.func.max(c[groups.order]).label("last"),
            sa.func.sum(sa.case((c[field] == counted, 1), else_=0)).label("counted"),
        )
        .where(c[groups.by].in_(sa.bindparam(_VALUES, expanding=True, type_=c[groups.by].type)))
        .group_by(c[groups.by], c[groups.then_by])
    )


@lru_cache(maxsize=16)
def _heads_query(table: sa.Table, groups: Groups) -> sa.Select[Any]:
    return _heads(table, groups)


@lru_cache(maxsize=16)
def _query(table: sa.Table, groups: Groups, clock: Any) -> sa.Select[Any]:
    heads, recent = _heads(table, groups).subquery("heads"), table.alias("recent")
    field, left_out = groups.but
    of_head = (recent.c[groups.by] == heads.c.by, recent.c[groups.then_by] == heads.c.then_by)
    is_recent = recent.c[groups.order] > heads.c.last - RECENT
    facts = (
        sa.select(
            *heads.c,
            sa.func.max(sa.case((recent.c[field] != left_out, recent.c[groups.order]))).label("newest"),
            *(sa.func.max(recent.c[name]).label(f"highest_{name}") for name in groups.highest),
        )
        .select_from(heads.outerjoin(recent, sa.and_(*of_head, is_recent)))
        .group_by(*heads.c)
        .subquery("facts")
    )
    c, is_newest = table.c, table.c[groups.order] == facts.c.newest
    of_facts = sa.and_(c[groups.by] == facts.c.by, c[groups.then_by] == facts.c.then_by, is_newest)
    return sa.select(
        *c,
        c[groups.by],
        facts.c.by,
        facts.c.then_by,
        facts.c.counted,
        sa.null() if clock is None else clock,
        *(facts.c[f"highest_{name}"] for name in groups.highest),
    ).select_from(facts.outerjoin(table, of_facts))
