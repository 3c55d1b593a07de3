"""Records and keys as text: the exact values come back, and keys that a server may take for one share a hash."""

from __future__ import annotations

import json
import math
import random
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.stores import LongText, exact_json
from backup.stores.exact_json import (
    decimal_of,
    key_from_text,
    key_to_text,
    plain_json,
    record_from_text,
    record_to_text,
)
from backup.stores.key_hash import key_hash

ONE_MEGABYTE = 1_000_000

# Two halves of a pair side by side are one character to every server, so no driver gives them apart.
texts = st.text(st.characters(), max_size=20).map(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
)
offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(timezone)
zones = st.none() | st.just(UTC) | offsets
decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    st.lists(st.integers(0, 9), max_size=60),
    st.integers(-400, 400),
) | st.sampled_from([Decimal(text) for text in ("NaN", "sNaN", "-NaN", "Infinity", "-Infinity", "-0.00", "0E+9")])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 4000).map(lambda bits: -(1 << bits))
    | st.floats(allow_subnormal=True)
    | decimals
    | st.binary(max_size=40)
    | texts
    | st.uuids()
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
)
TAGS = ["$float", "$decimal", "$bytes", "$uuid", "$datetime", "$date", "$time", "$timedelta", "$json", "$other"]
names = texts | st.sampled_from(TAGS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(names, scalars | json_values, max_size=6)


def exact(value: Any) -> Any:
    """What equals another value's only if both are the same in type, sign, digits, scale and offset."""
    match value:
        case float():
            return "float", math.isnan(value) or struct.pack("d", value)
        case Decimal():
            return "decimal", value.as_tuple()
        case datetime() | time():
            return type(value), value.replace(tzinfo=None), value.utcoffset()
        case dict():
            return "dict", [(name, exact(item)) for name, item in value.items()]
        case list() | tuple():
            return type(value), [exact(item) for item in value]
    return type(value), value


def test_nan_equals_itself_and_nothing_else_and_is_greater_than_every_number() -> None:
    nan: Any = decimal_of("NaN")
    numbers: list[Any] = [Decimal("Infinity"), Decimal(0), Decimal("-Infinity"), 1, 1.5]
    for other in (decimal_of("NaN"), Decimal("NaN"), Decimal("-NaN")):
        assert nan == other
        assert (nan != other) is False
        assert nan <= other
        assert nan >= other
        assert not nan < other
        assert not nan > other
    assert {nan, decimal_of("NaN")} == {nan}
    assert key_from_text(key_to_text((nan,))) == (nan,)
    for number in numbers:
        assert nan != number
        assert nan > number
        assert nan >= number
        assert not nan <= number
        assert number < nan
        assert number <= nan
    assert nan not in ("NaN", None, float("nan"))


@given(records)
def test_a_record_comes_back_exactly_and_in_the_order_of_its_names(record: dict[str, Any]) -> None:
    assert exact(record_from_text(record_to_text(record))) == exact(record)


@given(st.lists(scalars, min_size=1, max_size=4).map(tuple))
def test_a_key_comes_back_exactly(key: tuple[Any, ...]) -> None:
    assert exact(key_from_text(key_to_text(key))) == exact(key)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=repr)
def test_what_json_has_no_number_for_is_no_number_in_it(value: float) -> None:
    assert "$float" in json.loads(plain_json({"v": value}))["v"]


@given(records, st.lists(scalars, max_size=3).map(tuple))
def test_texts_are_ascii_without_control_characters(record: dict[str, Any], key: tuple[Any, ...]) -> None:
    assert all(" " <= character <= "~" for character in "".join(record_to_text(record)) + key_to_text(key))


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 2**63, -(2**4000), True, 0.0, -0.0, 5e-324, -2.2e-310, math.inf, -math.inf, math.nan, 1e23),
        *(Decimal("1.50"), Decimal("1E+30"), Decimal("-0.000"), Decimal("9" * 60 + ".10"), Decimal("sNaN")),
        *("", "a\x00b", "é漢🎉", "\ud800", "\udfff\ud800", "zlib:", '{"$decimal":"1"}', b"", b"\x00\xff"),
        *({"$decimal": "1"}, {"$json": {"$json": 1}}, {"$bytes": None}, {"a": {"$uuid": "x"}}, [{"$float": "nan"}]),
        *(UUID(int=0), date.min, datetime.max, time(23, 59, 59, 999999), timedelta.min, timedelta.max),  # noqa: DTZ901 - as drivers do
        datetime(2024, 10, 27, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    ],
    ids=repr,
)
def test_values_of_note_come_back_exactly(value: Any) -> None:
    assert exact(record_from_text(record_to_text({"v": value}))) == exact({"v": value})


@pytest.mark.parametrize("value", [bytearray(b"\x00\xff"), memoryview(b"\x00\xff")], ids=["bytearray", "memoryview"])
def test_what_a_driver_gives_for_bytes_comes_back_as_bytes(value: Any) -> None:
    assert exact(record_from_text(record_to_text({"v": value}))) == exact({"v": b"\x00\xff"})


def test_a_name_that_looks_like_a_tag_stays_a_name() -> None:
    assert record_from_text(record_to_text({"$decimal": "1"})) == {"$decimal": "1"}


def test_a_long_record_is_zipped_and_comes_back() -> None:
    record = {"text": "ä🎉" * 200_000, "bytes": random.Random(7).randbytes(300_000), "n": Decimal("1.10")}
    text = record_to_text(record)
    assert len(text) < 2 * ONE_MEGABYTE < len(plain_json(record))
    assert isinstance(text, str)
    assert text.isascii()
    assert exact(record_from_text(text)) == exact(record)


@pytest.mark.parametrize("length", [5, 6, 1_000, 100_000])
def test_the_text_of_a_very_long_record_is_made_in_pieces_each_time_it_is_read(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(exact_json, "_LONG", 10_000)
    record = {"text": "ä🎉" * 200, "bytes": random.Random(7).randbytes(20_000)}
    made = record_to_text(record)
    assert isinstance(made, LongText)
    assert list(made) == list(made)
    text = "".join(made)
    kept = LongText(lambda: (text[at : at + length] for at in range(0, len(text), length)), len(text))
    assert exact(record_from_text(kept)) == exact(record_from_text(text)) == exact(record)


def test_a_long_record_that_is_to_be_read_by_people_is_not_zipped() -> None:
    assert plain_json({"text": "x" * ONE_MEGABYTE}) == '{"text":"' + "x" * ONE_MEGABYTE + '"}'


@pytest.mark.parametrize("value", [{1, 2}, (1, 2), 1j, object()], ids=["set", "tuple", "complex", "object"])
def test_a_value_without_an_exact_form_is_refused_by_its_type(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        record_to_text({"v": value})


# --- the hash of a key ------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20), st.integers(0, 3))
def test_case_and_trailing_spaces_have_no_say_in_a_hash(text: str, spaces: int) -> None:
    variants = [text.upper(), text.lower(), text.swapcase(), text + " " * spaces]
    assert {key_hash((variant, 7)) for variant in variants} == {key_hash((text, 7))}


@pytest.mark.parametrize(
    ("part", "other"),
    [
        *(("É", "e"), ("E\u0301", "É"), ("Å", "\u212b"), ("ñ", "N"), ("ǖ", "U")),  # accents, composed or not
        *(("ＡＢＣ", "abc"), ("１２", "12"), ("ﾊ", "ハ"), ("ﾊﾟ", "パ")),  # noqa: RUF001 - width is the point
        *(("カタカナ", "かたかな"), ("ヴ", "う"), ("パ", "は")),  # kana
        *(("straße", "STRASSE"), ("ﬁ", "FI"), ("Ⅳ", "iv"), ("ς", "Σ"), ("İ", "i")),  # one for several, final forms
        *(("a", "a \u3000"), ("", " ")),  # trailing spaces
        *((b"a\0\0", b"a"), (b"\0", b"")),  # SQL Server pads the shorter one
    ],
)
def test_what_a_server_may_ignore_has_no_say_in_a_hash(part: str | bytes, other: str | bytes) -> None:
    assert key_hash((part,)) == key_hash((other,))


@given(st.lists(st.text("abc019-_. ", max_size=6), min_size=1, max_size=3, unique=True))
def test_a_hash_is_the_same_whatever_other_parts_a_key_has_not(parts: list[str]) -> None:
    key = tuple(parts)
    assert key_hash(key) == key_hash(tuple(parts)) != key_hash((*key, ""))


plain_keys = st.lists(
    st.text("abcxyz019-_.", max_size=6)
    | st.integers()
    | st.binary(max_size=4).map(lambda b: b + b"x")
    | st.uuids()
    | st.dates(),
    min_size=1,
    max_size=3,
).map(tuple)


@given(plain_keys, plain_keys)
def test_keys_that_differ_otherwise_have_hashes_of_their_own(key: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (key_hash(key) == key_hash(other)) == (exact(key) == exact(other))


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    keys: list[tuple[Any, ...]] = [("a", "b"), ("ab",), ("ab", ""), ("", "ab"), ("b", "a"), ('a", "b',), (1,), ("1",)]
    assert len(set(map(key_hash, keys))) == len(keys)


@given(st.integers() | st.integers(-(1 << 64), 1 << 64) | st.integers(-400, 400).map(lambda n: n * 10**15))
def test_an_integer_key_has_the_text_and_hash_of_any_other_way_to_write_it(n: int) -> None:
    assert key_to_text((n,)) == json.dumps([n], separators=(",", ":"))
    assert key_hash((n,)) == key_hash((Decimal(n),))
    assert key_hash((n, 1)) == key_hash((Decimal(n), 1))


def test_what_folds_plain_texts_alone_folds_them_as_any_other() -> None:
    """A character that is ignored has each go the long way."""
    plain = "".join(map(chr, range(32, 127)))
    for text in (plain, *plain, *(f"x{letter} " for letter in plain), "", " "):
        assert key_hash((text, 1)) == key_hash((f"{text}\u200b", 1))
