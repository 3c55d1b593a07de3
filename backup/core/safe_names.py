"""Turns names of services into names that files and blobs may have."""

from __future__ import annotations

import re
from hashlib import sha256

_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def safe_name(name: str) -> str:
    """Returns the name in lower case if it has at most 63 characters, all of them letters, digits, - or _.

    Else returns its hash, which is longer than any such name. Names that differ only in case give the same result.
    """
    lowered = name.lower()
    return lowered if _SAFE.fullmatch(lowered) else sha256(lowered.encode()).hexdigest()
