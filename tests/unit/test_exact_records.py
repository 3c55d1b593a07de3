"""A long record is read piece by piece, to the same values wherever the pieces end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.stores.exact_json import plain_json, record_from_text, record_to_text
from backup.stores.exact_records import RecordReader

TEXTS = st.text(st.characters() | st.sampled_from(['"', "\\", "\ud83d", "\ude00", "\U0001f600", "\u4e00", "\n"]))
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.lists(st.integers())


def pieces(text: str, length: int) -> Iterator[str]:
    return (text[start : start + length] for start in range(0, len(text), length))


@given(st.dictionaries(TEXTS, VALUES), st.integers(1, 20))
def test_values_are_the_same_wherever_the_pieces_end(record: dict[str, object], length: int) -> None:
    text = json.dumps(record, separators=(",", ":"))
    assert dict(RecordReader(pieces(text, length)).values()) == json.loads(text)


@given(st.dictionaries(TEXTS, st.binary()), st.integers(1, 20))
def test_bytes_are_the_same_wherever_the_pieces_end(record: dict[str, bytes], length: int) -> None:
    text = plain_json(record)
    assert dict(RecordReader(pieces(text, length)).values()) == record


@pytest.mark.parametrize("text", ["", "[", '{"a":', '{"a":"x', '{"a":1', '{"a":{"$bytes":"AA', '{"a" 1}'])
def test_a_text_that_ends_too_soon_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"missing|too soon|Unterminated|padding|delimiter|Invalid"):
        dict(RecordReader(iter([text])).values())


def test_long_values_of_all_kinds_come_back() -> None:
    record = {
        "Id": 7,
        "Text": '"\\' * 500_000 + "\U0001f600" * 300_000 + "\ud83d",
        "Bytes": bytes(range(256)) * 8_000,
        "None": None,
        "Zeros": "0" * 3_000_000,
        "Document": {"deep": [{"$bytes": "no"}] * 10},
        "Last": 1.5,
    }
    assert record_from_text(record_to_text(record)) == record
