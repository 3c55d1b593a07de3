"""Batches that are joined, because records that exchange values must be written together, stay small enough."""

import pytest

from backup.mirror import writing


def test_batches_are_joined_up_to_a_number_of_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_CHARACTERS_TOGETHER", 10)
    small, large = {"Id": 123_456, "Name": "12345"}, {"Id": 2, "Name": "123456", "Photo": b"12345"}
    batches = [[small], [small], [{**small, "Name": "1"}], [large], [small, small], []]
    assert [len(batch) for batch in writing._joined(batches)] == [3, 1, 2]
    assert list(writing._joined([])) == []
