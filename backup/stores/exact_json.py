"""Records and keys as JSON text that gives back the exact values: decimals, bytes, times, infinities. No I/O."""

from __future__ import annotations

import base64
import json
import math
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from hashlib import sha256
from itertools import chain
from json.encoder import encode_basestring_ascii
from typing import Any, TypeVar
from uuid import UUID

from backup.core.model import Key, Record
from backup.stores.exact_records import RecordReader
from backup.stores.sibling import LongText

Text = TypeVar("Text", str, bytes)

_ZIP_BEYOND = 1_000_000  # characters; a document of Cosmos DB may have 2 MB, whatever is in it
_ZIPPED = "zlib:"
_LONG = 1 << 20  # characters or bytes
_PART = 3 << 14  # of 3 bytes Base64 makes 4 characters, which another multiple of 4 takes apart again
# A character may take six in JSON, several times at once.
_KATAKANA_TO_HIRAGANA = {code: chr(code - 0x60) for code in range(0x30A1, 0x30F7)}
_SAME_LETTERS = (
    str.maketrans("øłđħŧıð", "oldhtid") | str.maketrans({"æ": "ae", "œ": "oe", "þ": "th"}) | _KATAKANA_TO_HIRAGANA
)
_BEYOND_64_BITS = 1 << 63
_compact_json = json.JSONEncoder(separators=(",", ":")).encode
_sorted_json = json.JSONEncoder(sort_keys=True).encode
_ALL_DIGITS = Context(prec=1_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


class NotANumber(Decimal):
    """A NaN that is equal to itself and greater than any number, as in PostgreSQL's numeric.

    So a set of keys finds it again, and two stamps with it are equal. Python's own NaN is unequal to itself and raises
    in comparisons.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decimal) and other.is_nan()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash("NaN")

    def __lt__(self, other: object) -> bool:
        return False

    def __le__(self, other: object) -> bool:
        return self == other

    def __gt__(self, other: object) -> bool:
        return self != other

    def __ge__(self, other: object) -> bool:
        return True


_NAN = NotANumber("NaN")


def decimal_of(text: str) -> Decimal:
    """The number that the text spells; for NaN a `NotANumber`."""
    return _NAN if text == "NaN" else Decimal(text)


def record_to_text(record: Record) -> str | LongText:
    """The record as JSON. A value that JSON does not have is an object with one name: {"$decimal": "1.10"}.

    A long text is compressed. The result is plain ASCII, so no server or driver changes it. The text of a very long
    record is made piece by piece, whenever somebody reads it, so that memory does not hold it beside the record.
    """
    size = sum(len(value) for value in record.values() if isinstance(value, str | bytes))
    if size > _LONG:
        return LongText(lambda: _zipped(_pieces(record)), size)
    if size > _ZIP_BEYOND:
        return "".join(_zipped(_pieces(record)))
    text = plain_json(record)
    return "".join(_zipped([text])) if len(text) > _ZIP_BEYOND else text


def plain_json(record: Record) -> str:
    """The record as in `record_to_text`, but never compressed."""
    return json.dumps({name: _tagged(value) for name, value in record.items()}, separators=(",", ":"))


def record_from_text(text: str | LongText) -> dict[str, Any]:
    """The record that `record_to_text` was given."""
    if isinstance(text, LongText) or text.startswith(_ZIPPED):
        return {name: _untagged(value) for name, value in RecordReader(_unzipped(text)).values()}
    return {name: _untagged(value) for name, value in json.loads(text).items()}


def comparable(value: Any) -> str:
    """A text that is equal for two values exactly if the values are the same; for a long value a hash."""
    if not isinstance(value, str | bytes) or len(value) <= _PART:
        return repr(value)
    digest = sha256()
    for part in slices_of(value) if isinstance(value, bytes) else _encoded(value):
        digest.update(part)
    return f"{type(value).__name__} {len(value)} {digest.hexdigest()}"


def comparable_number(value: Any) -> Any:
    """A value to compare by: equal for 1.50 and 1.5, for True and 1, and for texts that differ in spaces at their end.

    A column of a declared type may give one value in either form.
    """
    if isinstance(value, str):
        return value.rstrip(" ")
    if isinstance(value, bool | int | float | Decimal):
        number = Decimal(str(int(value) if isinstance(value, bool) else value))
        return (number.normalize(_ALL_DIGITS) or Decimal(0)) if number.is_finite() else number
    return value


def _pieces(record: Record) -> Iterator[str]:
    """The record's JSON, piece by piece."""
    before = "{"
    for name, value in record.items():
        yield f"{before}{json.dumps(name)}:"
        before = ","
        if isinstance(value, str) and len(value) > _PART:
            yield '"'
            yield from (json.dumps(part)[1:-1] for part in slices_of(value))
            yield '"'
        elif isinstance(value, bytes) and len(value) > _PART:
            yield '{"$bytes":"'
            yield from (base64.b64encode(part).decode() for part in slices_of(value))
            yield '"}'
        else:
            yield json.dumps(_tagged(value), separators=(",", ":"))
    yield "}" if before == "," else "{}"


def slices_of(value: Text) -> Iterator[Text]:
    """The value in slices, none of which is long."""
    return (value[start : start + _PART] for start in range(0, len(value), _PART))


def _encoded(text: str) -> Iterator[bytes]:
    return (part.encode("utf-8", "surrogatepass") for part in slices_of(text))


def _zipped(pieces: Iterable[str]) -> Iterator[str]:
    rest = b""
    closing = zlib.compressobj()
    yield _ZIPPED
    for piece in chain(pieces, [None]):
        rest += closing.flush() if piece is None else closing.compress(piece.encode())
        whole = len(rest) if piece is None else len(rest) - len(rest) % 3
        yield base64.b64encode(rest[:whole]).decode()
        rest = rest[whole:]


def _unzipped(text: str | LongText) -> Iterator[str]:
    """The text that was zipped, in pieces of bounded length, however well it was compressed. It is plain ASCII."""
    opened = zlib.decompressobj()
    rest, is_first = "", True
    for part in chain.from_iterable(map(slices_of, [text] if isinstance(text, str) else text)):
        rest += part
        if is_first:
            rest, is_first = rest[len(_ZIPPED) :], False
        whole = len(rest) - len(rest) % 4
        packed, rest = base64.b64decode(rest[:whole]), rest[whole:]
        while packed:
            yield opened.decompress(packed, _PART).decode()
            packed = opened.unconsumed_tail
    yield opened.flush().decode()


def key_to_text(key: Key) -> str:
    """The key as a JSON list."""
    if is_one_integer(key):  # most keys: the same text at a tenth of the cost
        return f"[{key[0]}]"
    # Of texts, an encoder that is made for each key takes more than half of the time.
    parts = (encode_basestring_ascii(part) if type(part) is str else _compact_json(_tagged(part)) for part in key)
    return f"[{','.join(parts)}]"


def key_from_text(text: str) -> Key:
    """The key that `key_to_text` was given."""
    return tuple(_untagged(part) for part in json.loads(text))


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
    return digest_of(f"[{', '.join(map(_folded_json, key))}]")


def _folded_json(part: Any) -> str:
    """The part as JSON, as a hash of its key has it."""
    if type(part) is str:
        return encode_basestring_ascii(_folded(part))
    if is_one_integer((part,)):
        return f'{{"$number": "{part if part % 10 else _without_zeros(part)}"}}'
    return _sorted_json(_alike(part))


def _integer_of(key: Key) -> int | None:
    """The integer of 64 bits that the key is, however it is written."""
    if is_one_integer(key):  # most keys: the same at a tenth of the cost
        return int(key[0])
    part = key[0] if len(key) == 1 else None
    if not isinstance(part, int | float | Decimal):
        return None
    number = part if isinstance(part, int) else Decimal(str(part))
    if isinstance(number, Decimal) and not number.is_finite():
        return None
    is_integer = -_BEYOND_64_BITS <= number < _BEYOND_64_BITS and number == int(number)
    return int(number) if is_integer else None


def digest_of(text: str) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of the text."""
    return sha256(text.encode()).hexdigest()[:32]


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


def is_one_integer(key: Key) -> bool:
    """Whether the key is one integer of 64 bits, as most keys are."""
    return len(key) == 1 and type(key[0]) is int and -_BEYOND_64_BITS <= key[0] < _BEYOND_64_BITS


def has_integers_only(key: Key) -> bool:
    """Whether each part of the key is an integer of 64 bits."""
    return all(type(part) is int and -_BEYOND_64_BITS <= part < _BEYOND_64_BITS for part in key)


def ordered_digits(number: int) -> str:
    """The sixteen hexadecimal digits of an integer of 64 bits. Their order is that of the numbers."""
    return f"{number + _BEYOND_64_BITS:016x}"


def _alike(part: Any) -> Any:
    if isinstance(part, str):
        return _folded(part)
    return _tagged(bytes(part).rstrip(b"\0")) if isinstance(part, bytes | bytearray) else _number(part)


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
        text = str(number.normalize(_ALL_DIGITS) if number.is_finite() else number)
        return {"$number": text if number else "0"}
    return _tagged(value)


def _tagged(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": repr(value)}
        case Decimal():
            return {"$decimal": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"$bytes": base64.b64encode(bytes(value)).decode()}
        case UUID():
            return {"$uuid": str(value)}
        case datetime():
            return {"$datetime": value.isoformat()}
        case date():
            return {"$date": value.isoformat()}
        case time():
            return {"$time": value.isoformat()}
        case timedelta():
            return {"$timedelta": [value.days, value.seconds, value.microseconds]}
        case Mapping() if len(value) == 1 and next(iter(value)) in _FROM_TAG:
            return {"$json": value}
        case Mapping() | list():
            return value  # of a document, which has nothing but JSON in it
    raise TypeError(f"a value of type {type(value).__name__} has no exact JSON form")


_FROM_TAG: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$decimal": decimal_of,
    "$bytes": base64.b64decode,
    "$uuid": UUID,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$json": lambda value: value,
}


def _untagged(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        [(tag, content)] = value.items()
        if tag in _FROM_TAG:
            return _FROM_TAG[tag](content)
    return value
