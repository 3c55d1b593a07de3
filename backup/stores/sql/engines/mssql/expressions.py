"""Expressions that T-SQL spells in its own way: casts to a declared type, hashes, bytes and exact texts."""

from __future__ import annotations

from functools import reduce
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import UserDefinedType

_PLUS = custom_op[Any]("+", natural_self_precedent=True)  # a chain of it has no brackets


def as_type(value: Any, declared: str) -> Any:
    """The value, cast to the declared type."""
    return sa.cast(value, _Raw(declared))


def concatenated(*values: Any) -> Any:
    """The texts, or the bytes, one after another; NULL if one of them is.

    Without the brackets of `op`: where they nest, the parser of some servers that speak T-SQL takes minutes.
    """
    return reduce(lambda whole, value: whole.operate(_PLUS, value), values)


def sha256(value: Any) -> Any:
    """The server's hash of a text or of bytes."""
    return sa.func.hashbytes(sa.literal_column("'SHA2_256'"), value)


def eight_bytes(value: Any, start: int) -> Any:
    """Eight bytes of the value, from `start` on, as a bigint. The first byte is at 1."""
    return sa.cast(sa.func.substring(value, sa.literal_column(str(start)), sa.literal_column("8")), sa.BigInteger)


def as_exact_text(value: Any) -> Any:
    """The value as text in one collation: the server does not concatenate texts of two."""
    return sa.collate(as_type(value, "nvarchar(max)"), "Latin1_General_BIN2")


def hash_as_text(value: Any) -> Any:
    """The first half of the SHA-256 of the value, as a text of two numbers."""
    # Not by CONVERT to hexadecimal digits: not every server that speaks T-SQL gets it right.
    first, second = (as_type(eight_bytes(sha256(value), start), "nvarchar(20)") for start in (1, 9))
    return concatenated(first, sa.literal_column("N','"), second)


def converted_to_text(value: Any, style: str) -> Any:
    """The value as CONVERT writes it in this style."""
    return sa.func.convert(sa.literal_column("varchar(60)"), value, sa.literal_column(style))


def big(number: int) -> sa.ColumnElement[Any]:
    """A constant as a bigint. Without the cast SQL Server takes a number beyond int as a decimal."""
    return sa.cast(sa.literal_column(str(number)), sa.BigInteger)


class _Raw(UserDefinedType[Any]):
    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name
