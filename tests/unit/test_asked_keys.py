"""Keys as people write them: what is understood, and what no key can be."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup.core.errors import BadRequest
from backup.stores.asked_keys import parts_of, value_of

NO_KEYS = [
    *("a\x00b", json.dumps(["a\x00b"]), json.dumps(["\ud800"]), "\udcff", json.dumps(["x", "a\udfff"])),
    *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '[{"a":' * 50_000, "[[1]]", "[1, [2]]", '[{"a": 1}]'),
    *("[NaN]", "[Infinity]", "[-Infinity]", "[1e999]", '["a", -1e999]'),
]


@pytest.mark.parametrize("text", NO_KEYS, ids=lambda text: ascii(text[:20]))
def test_a_text_that_holds_no_key_is_refused_with_what_is_wrong(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a key of the backup of order") as raised:
        parts_of(text, "backup of order")
    assert raised.value.hint
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        *(("42", None), ("a", None), ("", None), ("[a]", None), ("[", None), ("{}", None), ('["a"', None)),
        *(("[]", []), ('["eu", 42]', ["eu", 42]), (' ["[1]"]', ["[1]"]), ('[{}, "a"]', [{}, "a"])),
        *(("[null, true]", [None, True]), ("[1.5]", [1.5]), ('["\\ud83d\\ude00"]', ["\U0001f600"])),
        ("[" + "1" * 5000 + "]", None),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_list_is_its_parts_and_any_other_text_is_plain(text: str, parts: list[Any] | None) -> None:
    assert parts_of(text, "x") == parts


@given(st.text())
def test_any_text_is_understood_or_refused(text: str) -> None:
    with suppress(BadRequest):
        assert parts_of(text, "x") is None or text.lstrip().startswith("[")


@pytest.mark.parametrize(
    ("declared", "part"),
    [
        *(("bigint", part) for part in ("9" * 23, 10**23, 2**63, -(2**63) - 1, "1" * 5000, 1.5, "1e3", True, "")),
        *(("numeric(10, 2)", part) for part in ("1e999999999", "-1e-999999999", "x")),
        *(("uniqueidentifier", part) for part in ("x", "{", 7)),
        *(("uuid", "x"), ("bytea", "0x1"), ("varbinary(8)", "g"), ("float", "x")),
    ],
)
def test_what_no_column_of_the_type_holds_is_an_error(declared: str, part: Any) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        value_of(declared, part)


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [("numeric", "7", 7), ("decimal(4, 2)", "1.50", 1.5), ("uuid", "12345678-1234-5678-1234-567812345678", None)],
)
def test_a_driver_that_knows_few_types_gets_a_key_as_a_number_or_a_text(declared: str, text: str, value: Any) -> None:
    parameter = value_of(declared, text, plain=True)
    assert (parameter, type(parameter)) == (text if value is None else value, str if value is None else type(value))


def test_a_type_whose_name_begins_like_an_integers_takes_texts() -> None:
    given = [("interval", "1 mon"), ("int4range", "[1,5)"), ("integer[]", "{1,2}"), ("int8multirange", "{}")]
    assert [value_of(*part) for part in given] == [text for _, text in given]
    numbers = ("int", "INT8", "bigint", "serial", "oid", "tinyint", "integer")
    assert [value_of(declared, "7") for declared in numbers] == [7] * len(numbers)
    assert [value_of("boolean", part) for part in (True, "true", "F", "0")] == [True, True, False, False]
    with pytest.raises(ValueError, match="neither"):
        value_of("bool", "2")


@pytest.mark.parametrize("part", [2**63 - 1, -(2**63), "-0", "٣"])
def test_an_integer_of_64_bits_is_a_value_of_an_integer_column(part: Any) -> None:
    assert value_of("INTEGER", part) == int(part)
