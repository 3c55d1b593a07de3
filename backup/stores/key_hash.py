"""A hash of a key that is equal for keys which some server takes for the same. No I/O."""

from __future__ import annotations

import json
import math
import unicodedata
from decimal import Decimal
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from typing import Any

from backup.core.model import Key
from backup.stores.exact_json import ALL_DIGITS, BEYOND_64_BITS, is_one_integer, tagged

_KATAKANA_TO_HIRAGANA = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
_SAME_LETTERS = (
    str.maketrans("øłđħŧıð", "oldhtid") | str.maketrans({"æ": "ae", "œ": "oe", "þ": "th"}) | _KATAKANA_TO_HIRAGANA
)
_NUMBERS = (int, float, Decimal)
_sorted_json = json.JSONEncoder(sort_keys=True).encode


def key_hash(key: Key) -> str:
    """A hash that is equal for keys which some server takes for the same key.

    It ignores letter case, accents and strokes, character width, kana, digits of other scripts, invisible characters,
    characters beyond U+FFFF, trailing spaces, zeros at the end of bytes, and how a number is written. Keys that a
    server tells apart may share a hash: use it where a false alarm does less harm than a miss. Of one integer of 64
    bits it is the `ordered_digits`: entries of neighbours then fall on the same pages of an index.
    """
    number = _integer_of(key)
    return _digest_of_folded(key) if number is None else ordered_digits(number)


def key_hashes(key: Key) -> tuple[str, ...]:
    """The `key_hash`, and the digest that earlier releases made of a key that is an integer of 64 bits, too."""
    number = _integer_of(key)
    return (_digest_of_folded(key),) if number is None else (ordered_digits(number), _earlier_hash_of(number))


def _digest_of_folded(key: Key) -> str:
    return digest_of(f"[{', '.join([_folded_json(part) for part in key])}]")


def _folded_json(part: Any) -> str:
    """The part as JSON, as a hash of its key has it."""
    if type(part) is str:
        return encode_basestring_ascii(_folded(part))
    if type(part) is int and -BEYOND_64_BITS <= part < BEYOND_64_BITS:
        return f'{{"$number": "{part if part % 10 else _without_zeros(part)}"}}'
    return _sorted_json(_alike(part))


def _integer_of(key: Key) -> int | None:
    """The integer of 64 bits that the key is, however it is written."""
    if len(key) != 1:
        return None
    if is_one_integer(key):  # most keys: the same at a tenth of the cost
        return int(key[0])
    [part] = key
    if not isinstance(part, _NUMBERS):
        return None
    number = part if isinstance(part, int) else Decimal(str(part))
    if isinstance(number, Decimal) and not number.is_finite():
        return None
    is_integer = -BEYOND_64_BITS <= number < BEYOND_64_BITS and number == int(number)
    return int(number) if is_integer else None


def digest_of(text: str) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of the text."""
    return sha256(text.encode()).digest()[:16].hex()


def _earlier_hash_of(number: int) -> str:
    text = b'[{"$number": "%d"}]' % number if number % 10 else b'[{"$number": "%b"}]' % _without_zeros(number).encode()
    return sha256(text).hexdigest()[:32]


def _without_zeros(number: int) -> str:
    """What `_number` makes of an integer that ends in a zero, at a tenth of the cost."""
    if not number:
        return "0"
    sign, digits = "-" * (number < 0), str(abs(number))
    others = digits[1:].rstrip("0")
    return f"{sign}{digits[0]}{'.' * bool(others)}{others}E+{len(digits) - 1}"


def ordered_digits(number: int) -> str:
    """The sixteen hexadecimal digits of an integer of 64 bits. Their order is that of the numbers."""
    return f"{number + BEYOND_64_BITS:016x}"


def _alike(part: Any) -> Any:
    if isinstance(part, str):
        return _folded(part)
    return tagged(bytes(part).rstrip(b"\0")) if isinstance(part, bytes | bytearray) else _number(part)


def _folded(text: str) -> str:
    if text.isascii() and text.isprintable():  # most texts: the same at a fifth of the cost
        return text.lower().rstrip()
    plain = "".join(
        str(unicodedata.decimal(c, c))
        for c in unicodedata.normalize("NFKD", text.casefold())
        if not unicodedata.combining(c) and unicodedata.category(c)[0] != "C" and c <= "\uffff"
    )
    return plain.casefold().translate(_SAME_LETTERS).rstrip()


def _number(value: Any) -> Any:
    """A number in one form, however it was written; any other value with its tag."""
    if isinstance(value, int | Decimal) or (isinstance(value, float) and math.isfinite(value)):
        number = Decimal(str(value) if not isinstance(value, bool) else int(value))
        text = str(number.normalize(ALL_DIGITS) if number.is_finite() else number)
        return {"$number": text if number else "0"}
    return tagged(value)
