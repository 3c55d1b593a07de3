"""Records and keys as JSON text that gives back the exact values: decimals, bytes, times, infinities. No I/O."""

from __future__ import annotations

import base64
import json
import math
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
BEYOND_64_BITS = 1 << 63
_compact_json = json.JSONEncoder(separators=(",", ":")).encode
ALL_DIGITS = Context(prec=1_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


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
    return json.dumps({name: tagged(value) for name, value in record.items()}, separators=(",", ":"))


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
        return (number.normalize(ALL_DIGITS) or Decimal(0)) if number.is_finite() else number
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
            yield json.dumps(tagged(value), separators=(",", ":"))
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
    return f"[{','.join([_part_to_text(part) for part in key])}]"


def _part_to_text(part: Any) -> str:
    # An encoder that is made for each key takes more than half of the time.
    if type(part) is str:
        return encode_basestring_ascii(part)
    return str(part) if type(part) is int else _compact_json(tagged(part))


def key_from_text(text: str) -> Key:
    """The key that `key_to_text` was given."""
    return tuple(_untagged(part) for part in json.loads(text))


def is_one_integer(key: Key) -> bool:
    """Whether the key is one integer of 64 bits, as most keys are."""
    return len(key) == 1 and type(key[0]) is int and -BEYOND_64_BITS <= key[0] < BEYOND_64_BITS


def has_integers_only(key: Key) -> bool:
    """Whether each part of the key is an integer of 64 bits."""
    return all(type(part) is int and -BEYOND_64_BITS <= part < BEYOND_64_BITS for part in key)


def tagged(value: Any) -> Any:
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
