"""What a run counts and names: each record that it sets aside once, each note once, the first of many keys."""

import pytest

from backup.core.errors import RecordsSetAside, StoreError
from backup.core.model import Action, Key
from backup.core.run_values import Counts
from backup.mirror import tally as module
from backup.mirror.set_aside import Refusal
from backup.mirror.tally import Tally


def refusal(*keys: Key) -> Refusal:
    return Refusal(list(keys), StoreError("it is too long"))


def test_a_record_is_counted_once_however_often_it_is_set_aside() -> None:
    counts_told = list[Counts]()
    tally = Tally(counts_told.append, failures={"[7]": "an earlier call"}, counts=Counts(failed=1))
    tally.set_aside(refusal((1,), (2,)))
    tally.set_aside(refusal((7,), (2,), ("ü",)))
    assert tally.counts == counts_told[-1] == Counts(failed=4)
    assert tally.failures == {"[7]": "an earlier call"} | dict.fromkeys(("[1]", "[2]", '["ü"]'), "it is too long")
    assert tally.aside == {(1,), (2,), (7,), ("ü",)}


def test_beyond_the_names_records_are_counted_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAILURES_NAMED", 1)
    tally = Tally(lambda _: None)
    for _ in range(2):
        tally.set_aside(refusal((1,), (2,)))
    assert ([*tally.failures], tally.counts) == (["[1]"], Counts(failed=2))


def test_the_run_stops_at_one_record_more_than_it_may_set_aside() -> None:
    tally = Tally(lambda _: None, max_failed=2)
    tally.set_aside(refusal((1,), (2,)))
    with pytest.raises(RecordsSetAside, match=r"More than 2 records.* The first is \[1\]: it is too long"):
        tally.set_aside(refusal((3,)))


def test_a_run_that_set_records_aside_fails_with_their_number() -> None:
    tally = Tally(lambda _: None)
    assert tally.failure() is None
    for key, number in (((1,), "^1 record could"), ((2,), "^2 records could")):
        tally.set_aside(refusal(key))
        with pytest.raises(RecordsSetAside, match=number):
            raise tally.failure() or AssertionError


def test_a_note_is_made_once_and_a_thousand_keys_of_each_outcome_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANGES_NAMED", 3)
    tally = Tally(lambda _: None)
    for text in ("a", "b"):
        tally.note(text, once="Refused.")
        tally.name([(n,) for n in range(2)], Action.DELETED)
    tally.name([(9,)], Action.INSERTED)
    tally.name([("b", 10), ("b", 9), ("a", 10), ("b", -1)], Action.UPDATED)
    assert tally.notes == ["Refused. a"]
    assert [key for key, outcome in tally.changes if outcome is Action.UPDATED] == [("a", 10), ("b", -1), ("b", 9)]
    tally.changes = [change for change in tally.changes if change[1] is not Action.UPDATED]
    named = [((0,), Action.DELETED), ((1,), Action.DELETED), ((0,), Action.DELETED), ((9,), Action.INSERTED)]
    assert (tally.changes, module.first_of_each_outcome([*named, *named])) == (named, [*named, named[-1]])


def test_a_second_walk_names_no_record_again() -> None:
    tally = Tally(lambda _: None, key_to_json=lambda key: [str(part) for part in key])
    tally.name([(1,), (2,)], Action.INSERTED)
    tally.walk_again()
    tally.name([(2,), (3,)], Action.UPDATED)
    assert tally.changes == [(("1",), Action.INSERTED), (("2",), Action.INSERTED), (("3",), Action.UPDATED)]
