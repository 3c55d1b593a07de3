"""What a restore writes and deletes, batch by batch, and its later tries of what constraints refused. Never changes the
backup but for its bin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from backup.core.errors import BackupError
from backup.core.model import Key, Record, Stamps, Version
from backup.mirror.set_aside import Refusal, bisect, smallest_part_at_first
from backup.runs.session import Session
from backup.stores import Store
from backup.verbs.overwrite import Overwriting

_REFUSED_AT_MOST = 100_000  # keys, which are held in memory
_PAIRED_AT_MOST = 50  # records: 1,225 pairs, a transaction each
_TOGETHER = 2_000  # keys, at least


class WritingBack:
    """The writes and deletes of one restore; remembers what constraints refused, for `try_again`."""

    def __init__(self, session: Session, into: Store, overwriting: Overwriting) -> None:
        """`into` is the store that the restore writes to."""
        self._session, self._backup, self._into = session, session.backup, into
        self._tally, self._overwriting = session.tally, overwriting
        self._not_written: dict[Key, BackupError] = {}
        self._not_deleted: dict[Key, tuple[Version, BackupError]] = {}  # with the version that the restore met
        self._noted_columns: set[str] = set()
        self._smallest_part = 0
        self.exchanges = False
        """Whether records that are in each other's way are written together, by `exchange`."""

    def write(self, records: Sequence[Record], place_stamps: Stamps, backup_stamps: Stamps) -> None:
        """Writes the records. What a constraint refuses waits for `try_again`, what else is refused is set aside.
        Raises the first refusal when more than 100 000 records wait."""
        groups: dict[frozenset[str], list[Record]] = {}  # by columns: an image lacks those that are newer
        for record in records:
            # Another note names the columns that only the backup has.
            columns = _left_out(self._into, record) & _left_out(self._backup, record) - self._noted_columns
            self._noted_columns |= columns
            self._session.note(
                *(f"Column {name} is gone on both sides; what it held stays in the bin." for name in columns)
            )
            groups.setdefault(frozenset(record), []).append(record)

        def work(part: Sequence[Record]) -> None:
            self._overwriting.write(part, place_stamps, backup_stamps, replace=self.exchanges)

        for group in groups.values():
            for refusal in bisect(group, self._backup.keys.of, work, _is_counted, self._fewest(group)):
                if refusal.may_pass:
                    self._not_written |= dict.fromkeys(refusal.keys, refusal.error)
                else:
                    self._tally.set_aside(refusal)
        if len(self._not_written) > _REFUSED_AT_MOST:
            raise next(iter(self._not_written.values()))

    def delete(self, stamps: Sequence[tuple[Key, Version]]) -> None:
        """Deletes the records that are still as these stamps say. What a constraint refuses waits for `try_again`, what
        else is refused is set aside."""

        def work(part: Sequence[tuple[Key, Version]]) -> None:
            self._overwriting.delete(dict(part))

        versions = dict(stamps)
        for refusal in bisect(stamps, lambda stamp: stamp[0], work, _is_counted, self._fewest(stamps)):
            if refusal.may_pass:
                self._not_deleted |= {key: (versions[key], refusal.error) for key in refusal.keys}
            else:
                self._tally.set_aside(refusal)

    def try_again(self, restore_keys: Callable[[Sequence[Key]], None]) -> None:
        """Writes and deletes again what constraints refused, as long as each try leaves less; then writes together the
        records that are in each other's way. `restore_keys` restores the records of some keys by `write`."""
        self._smallest_part = 1
        before = len(self._not_written) + len(self._not_deleted) + 1
        while 0 < (left := len(self._not_written) + len(self._not_deleted)) < before:
            before = left
            self._once_more(restore_keys)
        never = {key: error for key, error in self._not_written.items() if not Refusal([key], error).may_exchange}
        self._not_written = {key: error for key, error in self._not_written.items() if key not in never}
        if self._not_written:
            self.exchanges = True
            self._once_more(restore_keys)
            self._in_pairs(restore_keys)
        self._not_written |= never

    def set_aside_refused(self) -> None:
        """Sets aside what constraints still refuse."""
        for key, error in self._not_written.items():
            self._tally.set_aside(Refusal([key], error))
        for key, (_, error) in self._not_deleted.items():
            self._tally.set_aside(Refusal([key], error))

    def _in_pairs(self, restore_keys: Callable[[Sequence[Key]], None]) -> None:
        """Writes pairs of records that have each other's values. Together with all others they were refused because of
        some other record."""
        self._smallest_part = 2
        for pair in combinations([*self._not_written] if len(self._not_written) <= _PAIRED_AT_MOST else (), 2):
            if self._not_written.keys() >= {*pair}:
                for key in pair:
                    del self._not_written[key]
                restore_keys(pair)

    def _once_more(self, restore_keys: Callable[[Sequence[Key]], None]) -> None:
        keys, stamps = [*self._not_written], [(key, version) for key, (version, _) in self._not_deleted.items()]
        self._not_written, self._not_deleted = {}, {}
        self.delete(stamps)
        size = self._into.traits.batch_size
        if self.exchanges:  # one part has to hold all records that are in each other's way
            size = max(size, _TOGETHER)
        for part in (keys[start : start + size] for start in range(0, len(keys), size)):
            restore_keys(part)

    def _fewest(self, items: Sequence[object]) -> int:
        """How small a refused part of these may be before it waits undivided."""
        return self._smallest_part or smallest_part_at_first(items)


def _is_counted(part: Sequence[object]) -> None:
    """Does nothing: `Overwriting` has counted it."""


def _left_out(store: Store, record: Record) -> set[str]:
    """The columns of the record that the store does not have."""
    return set() if store.relational is None else {*store.relational.without_column(record)}
