"""The deletes of a run, from a store in memory: how many it makes in its time, and what becomes of refused ones."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from backup.core.errors import ConstraintRefused, StoreError
from backup.core.model import Key
from backup.core.run_values import Counts, Proof, Run, Trigger
from backup.mirror.deleting import Deleting
from backup.mirror.pending_deletes import PendingDeletes
from backup.mirror.tally import Tally
from backup.stores import Keep, Written
from tests.unit.memory_store import MemoryStore, record
from tests.unit.test_sync import NOW, steps

KEYS = [(n,) for n in range(7)]


class Deletes:
    """Seven pending deletes. The backup refuses those in `refused`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, refused: Sequence[int] = (), error: type[StoreError] = ConstraintRefused
    ) -> None:
        self.backup = MemoryStore("backup", [record(n) for (n,) in KEYS], batch_size=2)
        self.source, self.tally = MemoryStore("source"), Tally(lambda _: None)
        self.tries = 0
        delete = self.backup.delete

        def constrained(keys: Sequence[Key], keep: Keep | None = None) -> Written:
            self.tries += 1
            if any((n,) in keys for n in refused):
                raise error("A record refers to it.")
            return delete(keys, keep)

        monkeypatch.setattr(self.backup, "delete", constrained)

    def make(self, *, at_once: bool = False, seconds_left: float = 1.0, dry_run: bool = False) -> bool:
        run = Run("test", Trigger.CLI, False, NOW, dry_run=dry_run)
        with PendingDeletes() as pending:
            pending.add(KEYS)
            in_time = replace(steps(), seconds_left=lambda: seconds_left)
            return Deleting(self.source, self.backup, run, self.tally, in_time).delete_all(pending, at_once=at_once)


@pytest.mark.parametrize(
    ("at_once", "seconds_left", "done", "deleted"),
    [(False, 0.0, False, 0), (True, 0.0, False, 2), (False, 0.5, True, 7)],
)
def test_when_the_time_is_up_deletes_remain_but_a_call_that_must_make_progress_has_made_one_batch(
    monkeypatch: pytest.MonkeyPatch, at_once: bool, seconds_left: float, done: bool, deleted: int
) -> None:
    deletes = Deletes(monkeypatch)
    assert deletes.make(at_once=at_once, seconds_left=seconds_left) is done
    assert (deletes.tally.counts, len(deletes.backup.contents())) == (Counts(deleted=deleted), 7 - deleted)


@pytest.mark.parametrize(("error", "tries"), [(ConstraintRefused, 8), (StoreError, 6)])
def test_a_delete_that_stays_refused_is_set_aside_and_fails_the_proof(
    monkeypatch: pytest.MonkeyPatch, error: type[StoreError], tries: int
) -> None:
    deletes = Deletes(monkeypatch, refused=[3], error=error)
    assert deletes.make()
    assert deletes.tries == tries  # what a constraint refuses is tried again until a round has made none
    assert deletes.tally.counts == Counts(deleted=6, failed=1)
    assert deletes.tally.proof == Proof(differing=1)
    assert [*deletes.tally.failures] == ["[3]"]
    assert deletes.backup.contents().keys() == {3}


def test_a_delete_without_effect_fails_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    deletes = Deletes(monkeypatch)
    monkeypatch.setattr(deletes.backup, "delete", lambda keys, keep: Written())
    deletes.make()
    assert deletes.tally.proof == Proof(differing=7)


def test_a_dry_run_names_the_deletes_and_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    deletes = Deletes(monkeypatch)
    assert deletes.make(dry_run=True)
    assert (deletes.tally.counts, deletes.tries) == (Counts(deleted=7), 0)
    assert [key for key, _ in deletes.tally.changes] == KEYS
