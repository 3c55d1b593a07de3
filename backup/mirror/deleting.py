"""The deletes of a sync. Each key that only the backup has is looked up in the source once more, then deleted.

The recycle bin gets the image of a record before the record is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from backup.core.model import Action, Key
from backup.core.run_values import Proof, Run
from backup.mirror.pair import belonging
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.set_aside import RECORDS_WAITING_AT_MOST, bisect, smallest_part_at_first
from backup.mirror.steps import Steps
from backup.mirror.tally import Tally
from backup.stores import Store


class Deleting:
    """Makes the deletes of one run, and proves each batch right after it.

    Where the copies of deleted records stay in the backup, it marks them.
    """

    def __init__(self, source: Store, backup: Store, run: Run, tally: Tally, steps: Steps) -> None:
        self._source, self._backup = source, backup
        self._run, self._tally, self._steps = run, tally, steps

    def delete_all(self, pending: PendingDeletes, *, at_once: bool) -> bool:
        """Deletes the pending keys. Returns whether the time was enough for all of them.

        With `at_once` it deletes at least one batch, whatever time is left. Records that a constraint refuses are tried
        again after the others, as long as their number falls with each round. Then they are set aside. A dry run only
        counts and names the deletes. Raises what the stores raise; batches that were deleted before stay deleted.
        """
        to_delete, before, first = pending, len(pending) + 1, True
        with ExitStack() as stack:
            while len(to_delete):
                waiting = stack.enter_context(PendingDeletes())
                last = not first and len(to_delete) >= before
                for keys in to_delete.batches(self._backup.traits.batch_size):
                    if not at_once and self._steps.seconds_left() <= 0:
                        return False
                    may_wait = not last and len(waiting) < self._most_waiting
                    waiting.add(self._delete(keys, first=first, may_wait=may_wait))
                    at_once = False
                to_delete, before, first = waiting, before if first else len(to_delete), False
        return True

    @property
    def _most_waiting(self) -> int:
        return RECORDS_WAITING_AT_MOST * self._tally.max_failed

    def _delete(self, keys: list[Key], *, first: bool, may_wait: bool) -> list[Key]:
        """Deletes these keys that the source still lacks. Returns the keys that wait for the next round.

        In the first round a refused key may take a few neighbours of its batch with it.
        """
        self._steps.check_lock()
        present = belonging(self._source, keys)
        gone = [key for key in keys if key not in present]
        if self._run.dry_run:
            self._tally.name(gone, Action.DELETED)
            self._tally.add(deleted=len(gone))
            return []
        deleted, waiting = list[Key](), list[Key]()

        def delete(part: Sequence[Key]) -> None:
            if self._backup.kept_deletes is not None:
                self._backup.kept_deletes.mark(part, self._steps.keep, self._steps.now())
            else:
                self._backup.delete(part, self._steps.keep)

        def count(part: Sequence[Key]) -> None:
            deleted.extend(part)
            self._tally.add(deleted=len(part))

        smallest_part = smallest_part_at_first(gone) if first and may_wait else 1
        aside = 0
        for refusal in bisect(gone, lambda key: key, delete, count, smallest_part):
            if refusal.may_pass and may_wait:
                waiting += refusal.keys
            else:
                self._tally.set_aside(refusal)
                aside += len(refusal.keys)
        still_there = Proof(differing=len(self._backup.matching(deleted)) + aside)
        self._tally.proof = (self._tally.proof or Proof()) + still_there
        return waiting
