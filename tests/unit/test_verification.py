"""What a verify of two stores in memory says, and what it leaves for the next call."""

from backup.core.model import Chunk, Fingerprint
from backup.core.run_values import Total
from backup.mirror import proof
from backup.mirror.checkpoint import Checkpoint
from backup.mirror.planned_changes import PlannedChanges, count_changes
from backup.mirror.proof import DifferenceKind
from backup.mirror.verification import Depth, Report, verify
from tests.unit.memory_store import MemoryStore, record


def test_a_verify_returns_to_no_chunk_and_goes_on_where_its_time_was_up() -> None:
    source = MemoryStore("source", [record(number, 2) for number in range(9)])
    backup = MemoryStore("backup", [record(number, 2 - number % 2) for number in range(2, 12)])
    saved, report = list[Checkpoint](), Report()
    left = verify(source, backup, Depth(), report, seconds_left=lambda: 0, save=saved.append)
    assert left is not None
    assert left.parts_left == [Chunk((2,))]
    assert verify(source, backup, Depth(), report, left, save=saved.append) is None
    assert saved[-1].complete
    assert {at.deleting for at in saved} == {()}
    kinds = {DifferenceKind.MISSING: 2, DifferenceKind.EXTRA: 3, DifferenceKind.STALE: 3}
    assert report.counts == kinds
    assert report.proof.differing == sum(kinds.values())


def test_foresight_counts_every_record_once_in_equal_chunks_and_in_others() -> None:
    source = MemoryStore("source", [record(number, 2) for number in range(1, 10)])
    backup = MemoryStore("backup", [record(number, 1 + (number != 4)) for number in (1, 2, 3, 4, 6, 10, 11)])
    assert count_changes(source, backup) == PlannedChanges(
        inserts=4, updates=1, deletes=2, source_records=9, backup_records=7
    )
    assert not backup.calls
    assert PlannedChanges() == PlannedChanges(inserts=0, updates=0, deletes=0, source_records=0, backup_records=0)


def test_foresight_counts_a_key_that_changed_only_for_python_as_an_update() -> None:
    source = MemoryStore("source", [record("A", 2)], fold=str.lower)
    backup = MemoryStore("backup", [record("a", 1), record("b")], fold=str.lower)
    assert count_changes(source, backup) == PlannedChanges(updates=1, deletes=1, source_records=1, backup_records=2)


def test_the_checksum_of_a_fingerprint_is_of_its_last_two_sums() -> None:
    both = Total(3, (7 << 64) + 5)
    comparison = proof.of_fingerprint(Fingerprint("rule", 3, (9, 7, 5)))
    assert (comparison.source, comparison.backup, comparison.differing) == (both, both, 0)
