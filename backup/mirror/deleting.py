"""The deletes of a sync: what only the backup has, looked up in the source once more and deleted, images first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from backup.core.model import Action, Key, Proof, Run
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.set_aside import apart
from backup.mirror.tally import Tally
from backup.mirror.writing import Steps
from backup.stores import Store

_PARTS_REFUSED = 16
_WAITING_AT_MOST = 10  # times the records that a run may set aside: each costs a transaction or more


class Deleting:
    """Deletes of one run, proven at once."""

    def __init__(self, source: Store, backup: Store, run: Run, tally: Tally, steps: Steps) -> None:
        self._source, self._backup = source, backup
        self._run, self._tally, self._steps = run, tally, steps

    def delete_all(self, pending: PendingDeletes, *, at_once: bool) -> bool:
        """Deletes what is pending, and returns whether time sufficed; one batch at least if it has to begin `at_once`.

        What a constraint refuses is tried again after the others, as long as it becomes less each time; then it is set
        aside. A dry run only counts and names.
        """
        todo, before, first = pending, len(pending) + 1, True
        with ExitStack() as stack:
            while len(todo):
                left = stack.enter_context(PendingDeletes())
                last = not first and len(todo) >= before
                for keys in todo.batches(self._backup.traits.batch_size):
                    if not at_once and self._steps.seconds_left() <= 0:
                        return False
                    left.add(self._delete(keys, first=first, may_wait=not last and len(left) < self._most))
                    at_once = False
                todo, before, first = left, before if first else len(todo), False
        return True

    @property
    def _most(self) -> int:
        return _WAITING_AT_MOST * self._tally.max_failed

    def _delete(self, keys: list[Key], *, first: bool, may_wait: bool) -> list[Key]:
        """Deletes these keys; returns those that wait for the others, some of them together with the one refused."""
        self._steps.held()
        present = self._source.matching(keys)
        gone = [key for key in keys if key not in present]
        if self._run.dry_run:
            self._tally.name(gone, Action.DELETED)
            self._tally.add(deleted=len(gone))
            return []
        deleted, waiting = list[Key](), list[Key]()

        def work(some: Sequence[Key]) -> None:
            self._backup.delete(some, self._steps.keep)

        def done(some: Sequence[Key]) -> None:
            deleted.extend(some)
            self._tally.add(deleted=len(some))

        constrained = max(1, len(gone) // _PARTS_REFUSED) if first and may_wait else 1
        aside = 0
        for refused in apart(gone, lambda key: key, work, done, constrained):
            if refused.may_pass and may_wait:
                waiting += refused.keys
            else:
                self._tally.set_aside(refused)
                aside += len(refused.keys)
        left = Proof(differing=len(self._backup.matching(deleted)) + aside)
        self._tally.proof = (self._tally.proof or Proof()) + left
        return waiting
