"""The comparison of stamps, by examples and against a model."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.model import Key, Version
from backup.mirror.diff import Changes, compare_stamps, has_changed, only_touched, went_back, with_server_equality
from backup.stores.exact_json import decimal_of

keys = st.tuples(st.integers(0, 8))
versions = st.builds(Version, st.tuples(st.one_of(st.none(), st.integers(0, 2))), st.sampled_from([None, "a", "b"]))
stamps = st.dictionaries(keys, versions, max_size=8)


@pytest.mark.parametrize(
    ("source", "backup", "expected"),
    [
        (Version((1,)), Version((1,)), False),
        (Version((2,)), Version((1,)), True),
        (Version((1,)), Version((2,)), True),  # lower than the backup's
        (Version(("t", "Paid")), Version(("t", "Paid")), False),
        (Version(("t", "Paid")), Version(("t", "New")), True),
        (Version(("t", None)), Version(("t", "New")), True),
        (Version((1,), "a"), Version((1,), "a"), False),
        (Version((1,), "b"), Version((1,), "a"), True),  # two writes within one tick
        (Version((), "a"), Version((), "a"), False),  # a service without version fields
        (Version((), "b"), Version((), "a"), True),
        (Version((), "a"), Version((), None), True),
        (Version((1,), "a"), Version((1,), None), False),  # a copy from before etags were recorded
        (Version((None,), "a"), Version((None,), "a"), False),
        (Version((None,), "b"), Version((None,), "a"), True),
        (Version((None,), "a"), Version((None,), None), True),  # nothing says that the copy is current
        (Version((None, "Paid"), "a"), Version((None, "Paid"), None), True),
        (Version((None,)), Version((1,)), True),
        (Version((1,)), Version((None,)), True),
        (Version((Decimal("NaN"),)), Version((Decimal("NaN"),)), False),  # unequal to itself, but the same
        (Version((Decimal("sNaN"),)), Version((Decimal("sNaN"),)), False),
        (Version((float("nan"), "a")), Version((float("nan"), "a")), False),
        (Version((float("nan"), "a")), Version((float("nan"), "b")), True),
        (Version((Decimal("NaN"),)), Version((Decimal(1),)), True),
        (Version((Decimal(1),)), Version((Decimal("sNaN"),)), True),
        (Version((float("inf"),)), Version((float("-inf"),)), True),
    ],
)
def test_a_record_is_changed_when_its_version_or_then_its_etag_differs(
    source: Version, backup: Version, expected: bool
) -> None:
    assert has_changed(source, backup) is expected


@pytest.mark.parametrize(
    ("source", "backup", "expected"),
    [
        (Version((1,), "b"), Version((1,), "a"), True),
        (Version((1,), "a"), Version((1,), "a"), False),
        (Version((2,), "b"), Version((1,), "a"), False),
        (Version((1,), None), Version((1,), "a"), False),
    ],
)
def test_a_record_is_only_touched_when_nothing_but_its_etag_differs(
    source: Version, backup: Version, expected: bool
) -> None:
    assert only_touched(source, backup) is expected


def test_without_their_records_in_the_source_inserts_are_none_and_updates_are_deletes() -> None:
    new, changed, other, gone = [(n,) for n in range(4)]
    changes = Changes(frozenset({new}), frozenset({changed, other}), frozenset({gone}), 5)
    assert changes.without_source({new, changed}) == Changes(
        frozenset(), frozenset({other}), frozenset({gone, changed}), 5
    )
    assert changes.without_source(set()) == changes


def test_each_key_is_inserted_updated_deleted_or_skipped() -> None:
    source = {("new",): Version((1,)), ("newer",): Version((2,)), ("same",): Version((1,))}
    backup = {("newer",): Version((1,)), ("same",): Version((1,)), ("gone",): Version((1,))}
    assert compare_stamps(source, backup, force=False) == Changes(
        insert=frozenset({("new",)}), update=frozenset({("newer",)}), delete=frozenset({("gone",)}), skipped=1
    )


@given(stamps, stamps, st.booleans())
def test_changes_are_what_a_model_of_two_dicts_says(
    source: dict[Key, Version], backup: dict[Key, Version], force: bool
) -> None:
    changes = compare_stamps(source, backup, force)
    common = {key for key in source if key in backup}
    update = {key for key in common if force or has_changed(source[key], backup[key])}
    assert changes.insert == {key for key in source if key not in backup}
    assert changes.update == update
    assert changes.delete == {key for key in backup if key not in source}
    assert changes.skipped == len(common) - len(update)


@given(stamps, st.booleans())
def test_equal_stamps_with_etags_or_versions_change_nothing_unless_forced(
    source: dict[Key, Version], force: bool
) -> None:
    with_versions = {key: version for key, version in source.items() if version.value[0] is not None or version.etag}
    changes = compare_stamps(with_versions, dict(with_versions), force)
    assert (changes.insert, changes.delete) == (frozenset(), frozenset())
    assert len(changes.update) == (len(with_versions) if force else 0)


@given(stamps, stamps, st.sets(keys))
def test_an_insert_that_the_backup_matches_becomes_an_update_and_nothing_else_changes(
    source: dict[Key, Version], backup: dict[Key, Version], matching: set[Key]
) -> None:
    before = compare_stamps(source, backup, force=False)
    after = with_server_equality(before, matching & before.insert)
    assert after.write == before.write
    assert after.insert == before.insert - matching
    assert (after.delete, after.skipped) == (before.delete, before.skipped)


@pytest.mark.parametrize(
    ("source", "backup", "expected"),
    [
        (Version((1,)), Version((2,)), True),
        (Version((2,)), Version((1,)), False),
        (Version((1,)), Version((1,)), False),
        (Version((None,)), Version((1,)), False),
        (Version((1,)), Version(("1",)), False),
        (Version((), "a"), Version((), "b"), False),
        (Version(("2024-01-01", "Paid")), Version(("2024-01-02", "New")), True),
        (Version(("2024-01-01", "New")), Version(("2024-01-01", "Paid")), False),  # another status is not an older one
        (Version((Decimal("NaN"),)), Version((Decimal(1),)), False),
        (Version((Decimal(1),)), Version((Decimal("NaN"),)), False),
        (Version((decimal_of("NaN"),)), Version((Decimal("Infinity"),)), False),
        (Version((Decimal("Infinity"),)), Version((decimal_of("NaN"),)), True),  # as PostgreSQL sorts
    ],
)
def test_a_version_goes_back_when_it_is_comparable_and_lower(source: Version, backup: Version, expected: bool) -> None:
    assert went_back(source, backup) is expected
