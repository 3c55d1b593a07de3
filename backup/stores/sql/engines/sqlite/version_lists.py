"""Lists of versions, or of numbers and versions, that SQLite writes as JSON, and the fingerprints of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from backup.core.model import Fingerprint

FUNCTIONS = "blake2b"
DIGITS = b"-0123456789"


class VersionList(NamedTuple):
    """The rows of one statement: the first and the last number, how many rows, and their list."""

    first: int | None
    last: int | None
    records: int
    text: bytes

    @property
    def has_gaps(self) -> bool:
        return self.first is not None and self.last is not None and self.last - self.first + 1 != self.records


def are_numbers(first: Any, last: Any) -> bool:
    """Whether both ends of the rows are integers, as those of rows that are kept by their numbers. Somebody may have
    made the table anew since its columns were read, with another key."""
    return isinstance(first, int) and isinstance(last, int)


def number_of_values(text: bytes) -> int | None:
    """The number of values in the list; None if one is not an integer."""
    commas = text[1:-1].translate(None, DIGITS)
    if commas != b"," * len(commas):
        return None
    return len(commas) + 1 if len(text) > len(b"[]") else 0


def number_of_pairs(text: bytes) -> int | None:
    """The number of pairs in the list; None if a version is not an integer."""
    others = text.translate(None, DIGITS)
    pairs = len(others) // len(b'"":,')
    return pairs if others == b"{" + b",".join([b'"":'] * pairs) + b"}" else None


def added(digest: Any, rows: VersionList) -> Any:
    """The digest of all parts so far and of these rows."""
    if rows.records:
        digest.update(f"{'keys' if rows.has_gaps else rows.first},{len(rows.text)}:".encode())
        digest.update(rows.text)
    return digest


def made(records: int, digest: Any) -> Fingerprint:
    return Fingerprint(FUNCTIONS, records, (), int.from_bytes(digest.digest()) if records else 0)
