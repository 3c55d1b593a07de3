"""Masks: what a copy holds instead of a value that must not leave the source. Pure; opens nothing.

A masked value never equals the clear one, whatever its type: a value that a mask cannot read becomes nothing (None).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from hashlib import sha256
from hmac import digest
from typing import Any, Literal

from backup.core.errors import ConfigError

MaskKind = Literal["null", "hmac", "email", "text", "year"]
HMAC_CHARACTERS = 16
"""How many characters a value masked by `hmac` has: 80 bits."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_DATE = re.compile(
    r"(?P<year>\d{4})-\d\d-\d\d"
    r"(?P<time>([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?)?( ?Z| ?[+-]\d\d(:?\d\d){0,2})?( BC)?) *",
    re.ASCII,
)
_ADDRESS = re.compile(r"(?P<local>\S+)@(?P<domain>[\w-]+(\.[\w-]+)*) *")
_KEY_BYTES = 16


@dataclass(frozen=True)
class Mask:
    """How one column or property is masked. Nothing (NULL) stays nothing.

    - `null`: the copy has no value.
    - `hmac`: 16 letters and digits, the same for the same text, so that joins still work. Not to be guessed without the
      key.
    - `email`: the part before the last @ as by `hmac`, the domain as it is. A text without a domain as by `hmac`.
    - `text`: the `text`, always the same.
    - `year`: the first day of the year of a date or time.
    """

    kind: MaskKind
    text: str = ""


@dataclass(frozen=True)
class Masking:
    """The masks of one service, by the names of its columns or properties, and the key that they use.

    Raises ConfigError for masks that need a key where there is none, or a short one.
    """

    masks: Mapping[str, Mask] = field(default_factory=dict)
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.masks and len(self.key.encode()) < _KEY_BYTES:
            fault = f"has fewer than {_KEY_BYTES} characters" if self.key else "is missing"
            raise ConfigError(
                f"A service has masks, and the setting BackupMask__Key {fault}.",
                hint="Set BackupMask__Key to a long random text, and keep it: another key gives other masked values.",
            )

    def __bool__(self) -> bool:
        return bool(self.masks)

    def masked(self, name: str, value: Any) -> Any:
        """What a copy holds instead of this value of the column or property `name`, as the masks spell the name."""
        if value is None:
            return None
        mask = self.masks[name]
        match mask.kind:
            case "null":
                return None
            case "text":
                return mask.text
            case "year":
                return _first_of_year(value)
            case "hmac":
                return self.hmac(value)
            case "email":
                address = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
                return f"{self.hmac(address['local'])}@{address['domain']}" if address else self.hmac(value)

    def hmac(self, value: Any) -> str:
        """The value as `hmac` masks it."""
        # To a server 'a' and 'a ' are often one text, and a char(n) is filled up: both sides of a join mask alike.
        text = value.rstrip(" ") if isinstance(value, str) else json.dumps(_plain(value), sort_keys=True)
        hashed = int.from_bytes(digest(self._secret("value"), text.encode("utf-8", "surrogatepass"), "sha256"))
        return "".join(_ALPHABET[hashed >> 5 * place & 31] for place in range(HMAC_CHARACTERS))

    def _secret(self, purpose: str) -> bytes:
        return digest(self.key.encode(), purpose.encode(), "sha256")

    @cached_property
    def stamp_secret(self) -> str:
        """What the hash of a source's record begins with: 64 hexadecimal digits, other ones for other masks or another
        key; empty without masks. Without it nobody can guess records by their hashes. It tells nothing about the
        key."""
        rules = repr(sorted((name.lower(), mask.kind, mask.text) for name, mask in self.masks.items()))
        return self._secret(f"stamp {rules}").hex() if self.masks else ""

    @cached_property
    def mark(self) -> str:
        """16 hexadecimal digits, other ones for other masks or another key. A copy has the mark of the masks that made
        it; sixteen zeros stand for no masks."""
        return sha256(self.stamp_secret.encode()).hexdigest()[:16] if self.masks else "0" * 16


NO_MASKS = Masking()


def _first_of_year(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    if isinstance(value, date):
        return value.replace(month=1, day=1)
    if isinstance(value, str) and (when := _DATE.fullmatch(value)):
        # A time's text keeps its form: 2024-05-06T07:08:09Z → 2024-01-01T00:00:00Z.
        return f"{when['year']}-01-01" + re.sub(r"\d", "0", when["time"])
    return None


def _plain(value: Any) -> Any:
    """The value as JSON can hold it; each two different values stay different."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    return [type(value).__name__, repr(value)]
