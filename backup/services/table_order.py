"""The order of tables by their foreign keys: parents before the children that refer to them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from backup.stores import ForeignKey


@dataclass(frozen=True)
class TableOrder:
    """Tables by level, parents first: a table refers only to tables of earlier levels, but for the `cycles`.

    Each of `cycles` is a list of tables of which each refers to the next, and the last to the first. `linked` are the
    tables that refer to another table of the order, or are referred to. A table that refers to itself alone is not.
    """

    levels: Sequence[Sequence[str]]
    cycles: Sequence[Sequence[str]]
    linked: frozenset[str]


def parents_first(tables: Sequence[str], foreign_keys: Iterable[ForeignKey]) -> TableOrder:
    """Returns the order of these tables; within a level they stay as they were given. Foreign keys from or to other
    tables do not count. Case counts in names only where two tables differ in nothing else."""
    exact, alike = set(tables), {table.lower(): table for table in reversed(tables)}
    parents: dict[str, dict[str, None]] = {table: {} for table in tables}
    for foreign_key in foreign_keys:
        child, parent = (
            name if name in exact else alike.get(name.lower()) for name in (foreign_key.table, foreign_key.referred)
        )
        if child is not None and parent is not None and child != parent:
            parents[child][parent] = None
    linked = frozenset(table for child, referred in parents.items() if referred for table in (child, *referred))
    cycles: list[Sequence[str]] = []
    while True:
        sorter = TopologicalSorter(parents)
        try:
            sorter.prepare()
            break
        except CycleError as error:  # it names one cycle: each table is a parent of the next, the first is the last
            cycle = error.args[1]
            cycles.append(cycle[:0:-1])
            del parents[cycle[1]][cycle[0]]
    levels, places = [], {table: place for place, table in enumerate(tables)}
    while sorter.is_active():
        level = sorted(sorter.get_ready(), key=places.__getitem__)
        levels.append(level)
        sorter.done(*level)
    return TableOrder(levels, cycles, linked)


def cycle_text(cycle: Sequence[str]) -> str:
    """A sentence that names the tables of a cycle."""
    return f"The foreign keys of {' → '.join((*cycle, cycle[0]))} form a cycle."
