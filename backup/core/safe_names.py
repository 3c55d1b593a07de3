"""Names of services as they may stand in names of files and blobs."""

from __future__ import annotations

import re
from hashlib import sha256

_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def safe_name(name: str) -> str:
    """The name itself if it is short and of letters, digits, - and _; else its hash, which no such name is like.

    Names that differ in nothing but case have one.
    """
    lowered = name.lower()
    return lowered if _SAFE.fullmatch(lowered) else sha256(lowered.encode()).hexdigest()
