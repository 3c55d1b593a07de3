"""What an entry of the recycle bin says of one image."""

from __future__ import annotations

import pytest

from backup.core.model import Action, Image
from backup.recycle_bin import entries
from backup.stores import LongText, exact_json


@pytest.mark.parametrize("longest", [10_000, 10])
def test_in_a_source_the_record_counts_in_the_id_of_its_entry_also_if_it_is_long(
    monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    monkeypatch.setattr(exact_json, "_LONG", longest)
    images = [Image(("a",), Action.UPDATED, {"text": text * 100}, (1,)) for text in ("x", "y", "x")]
    made = [entries.of_one("0" * 32, "source", image) for image in images]
    assert {isinstance(entry["Record"], LongText) for entry in made} == {longest == 10}
    first, other, again = (entry["EntryId"] for entry in made)
    assert (first == again, first == other) == (True, False)
