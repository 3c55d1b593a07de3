"""What a service must do, as dicts: what a sync, an undo and a restore change. Knows nothing of the product."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.reliability.keys import Key

Row = dict[str, Any]
"""A row by column, without its NULLs."""

State = dict[Key, Row]
"""A table by folded key."""

MAX_DELETE_PERCENT, DELETE_GUARD_FLOOR, MAX_DELETES = 40, 2, 5


def trips(deletes: int, wanted: int, held: int) -> bool:
    """Whether the guard stops so many deletes."""
    if not deletes:
        return False
    beyond = deletes > DELETE_GUARD_FLOOR and deletes * 100 > MAX_DELETE_PERCENT * held
    return wanted == 0 or beyond or deletes > MAX_DELETES


def stamp(row: Row, shared: Collection[str]) -> Any:
    """The version, or the shared content of a row without one."""
    own = {name: value for name, value in row.items() if name in shared}
    return row.get("Version", sorted(own.items()))


def goes_back(row: Row, copy: Row) -> bool:
    """Whether the row has a lower version than its copy."""
    return "Version" in row and "Version" in copy and bool(row["Version"] < copy["Version"])


@dataclass(frozen=True)
class Sync:
    """What a sync changes."""

    inserts: set[Key]
    updates: set[Key]
    deletes: set[Key]
    respelled: set[Key]
    skipped: int
    written: State = field(repr=False)
    done: State = field(repr=False)
    tripped: bool
    late: set[Key] = field(default_factory=set)
    """Those of the writes that come after the deletes."""

    @property
    def writes(self) -> set[Key]:
        return self.inserts | self.updates

    @property
    def touched(self) -> set[Key]:
        return self.writes | (set() if self.tripped else self.deletes)


def sync(
    source: State, backup: State, columns: Collection[str], copied: Collection[str], names: Collection[str], force: bool
) -> Sync:
    """`columns` are the source's, `copied` the backup's, `names` the key's."""
    shared = {*columns} & {*copied}
    common = source.keys() & backup.keys()
    respelled = {key for key in common if any(source[key][name] != backup[key][name] for name in names)}
    changed = {key for key in common if force or stamp(source[key], shared) != stamp(backup[key], shared)} | respelled
    inserts, deletes = {*source} - common, {*backup} - common
    written = {**backup, **{key: copy_of(source[key], backup.get(key, {}), columns) for key in inserts | changed}}
    done = {key: row for key, row in written.items() if key not in deletes}
    tripped = trips(len(deletes), len(source), len(backup))
    return Sync(inserts, changed, deletes, respelled, len(common - changed), written, done, tripped)


def resume(
    source: State,
    backup: State,
    left: Collection[Key],
    deleting: Collection[Key],
    already: tuple[int, int],
    columns: Collection[str],
    copied: Collection[str],
    names: Collection[str],
    force: bool,
    dry_run: bool,
    allowed: bool,
) -> Sync:
    """What a sync that goes on changes: of the keys `left`, and of those near its deletes, which are looked at again.
    A dry run looks there for deletes alone, for it has not written what it has counted.

    `already` are the records of source and backup that it has walked before; `allowed` are mass deletes.
    """

    def part(state: State, keys: Collection[Key]) -> State:
        return {key: row for key, row in state.items() if key in keys}

    rest = sync(part(source, left), part(backup, left), columns, copied, names, force)
    again = sync(part(source, deleting), part(backup, deleting), columns, copied, names, force=False)
    deletes = rest.deletes | again.deletes
    tripped = trips(len(deletes), already[0] + len(part(source, left)), already[1] + len(part(backup, left)))
    late = set() if dry_run or (tripped and not allowed) else again.writes
    written = {**backup, **rest.written}
    done = {key: row for key, row in {**written, **again.written}.items() if key not in deletes}
    return Sync(
        rest.inserts | (again.inserts & late),
        rest.updates | (again.updates & late),
        deletes,
        rest.respelled | again.respelled,
        rest.skipped,
        written,
        done,
        tripped,
        late,
    )


def copy_of(row: Row, before: Row, columns: Collection[str]) -> Row:
    """A row as written over another: columns that the source has not keep what they had."""
    return {name: value for name, value in before.items() if name not in columns} | row


def undo(backup: State, images: Iterable[Mapping[Key, Row | None]]) -> tuple[State, set[Key]]:
    """The backup with the images of some runs put back, newest run first; and the keys that this touches."""
    after, touched = dict(backup), set()
    for run_images in images:
        for key, image in run_images.items():
            if image is not None:
                after[key] = image
                touched.add(key)
            elif key in after:
                del after[key]
                touched.add(key)
    return after, touched


@dataclass(frozen=True)
class Restore:
    """What a restore changes in the source: rows to write (as the backup had them), keys to delete."""

    inserts: State
    updates: State
    newer: set[Key]
    extra: set[Key]
    tripped: bool


def restore(
    source: State,
    backup: State,
    then: State,
    since: Collection[Key],
    shared: Collection[str],
    names: Collection[str],
    keys: Collection[Key],
    overwrite_newer: bool,
) -> Restore:
    """`then` is the backup's state to restore, `since` the keys changed in the backup since, `names` the key's."""
    asked = set(keys) or source.keys() | backup.keys() | then.keys()
    inserts = {key: then[key] for key in asked if key in then and key not in source}
    common = {key for key in asked if key in then and key in source}
    respelled = {key for key in common if any(source[key][name] != then[key][name] for name in names)}
    newer = {key for key in common if key in respelled or _is_newer(source[key], backup.get(key), shared)}
    newer = set() if overwrite_newer else newer
    updates = {
        key: then[key]
        for key in common - newer
        if stamp(source[key], shared) != stamp(then[key], shared)
        or key in respelled
        or (key in since and "Version" not in source[key])
    }
    extra = {key for key in asked if key in source and key not in then}
    if not overwrite_newer:
        late = {key for key in extra & backup.keys() if _is_newer(source[key], backup[key], shared)}
        newer, extra = newer | late, extra - late
    wanted = len(backup) if keys else len(then)
    return Restore(inserts, updates, newer, extra, trips(len(extra), wanted, len(source)))


def _is_newer(row: Row, copy: Row | None, shared: Collection[str]) -> bool:
    return copy is None or (stamp(row, shared) != stamp(copy, shared) and not goes_back(row, copy))
